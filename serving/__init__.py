"""The server: streams bit-packed binary images out of exported generators. Needs onnxruntime, never torch."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is loaded: 1.29 and later report home by default
