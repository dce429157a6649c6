"""Generators, discriminators and output neurons."""
