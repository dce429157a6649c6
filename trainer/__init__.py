"""The trainer: data, binary neurons, networks, objectives, training, and export to ONNX. Needs torch."""
