"""The ONNX file that a run is exported to: where its manifest lies, and how it is opened."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime 1.29 and later report home by default

import onnxruntime

MANIFEST_KEY = "bgan.model"


def open_session(model: bytes | Path) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU."""
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
