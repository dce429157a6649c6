"""The server: streams bit-packed binary images out of exported generators. Needs onnxruntime, never torch."""
