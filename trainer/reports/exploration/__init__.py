"""What a generator has learned, to look at."""
