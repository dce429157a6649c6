"""Gradient estimators through binary neurons."""
