"""Models that are loaded, checked and run; nothing here knows gRPC."""
