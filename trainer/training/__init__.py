"""A training run: its steps, its loop and its folder."""
