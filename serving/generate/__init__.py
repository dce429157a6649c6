"""Images into a file, without a server."""
