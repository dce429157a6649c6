"""Readers of files and folders of images."""
