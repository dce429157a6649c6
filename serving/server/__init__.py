"""The life of a server: processes, ports, signals, health."""
