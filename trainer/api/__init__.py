"""The Python interface: what the commands use, and whoever imports `bgan.trainer`."""
