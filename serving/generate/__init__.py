"""Images into files, without a server."""
