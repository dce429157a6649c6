"""What every layer uses: errors, files, signals, random numbers, pictures of images."""
