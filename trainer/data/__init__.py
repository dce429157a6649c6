"""Data sets of binary images."""
