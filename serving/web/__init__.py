"""HTTP: the methods of the services, and images in files' formats, for whoever has no gRPC."""
