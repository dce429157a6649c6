"""Settings of a server: where they come from, and what follows from them."""
