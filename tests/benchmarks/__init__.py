"""Benchmarks: ratios within one run, medians of repeats, nothing asserted. Run them with `make bench`."""
