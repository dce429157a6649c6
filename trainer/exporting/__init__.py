"""From a run to one ONNX file."""
