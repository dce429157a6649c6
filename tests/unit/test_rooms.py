"""The room rules: no room imports another, and each loads only what it may."""

import ast
import subprocess
import sys

import pytest

import bgan.clients
from tests.conftest import ROOT

ROOMS = ("trainer", "serving", "clients")
TORCH = ("torch", "torchvision", "onnx", "sklearn")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"{path} imports from above its room"
            if node.level == 0:
                yield node.module


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_other_room(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        for name in _imports(path):
            if name.split(".")[0] == "bgan":
                assert name == "bgan.v1", f"{path} imports {name}"


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("bgan.serving.server", (*TORCH, "prometheus_client", "opentelemetry")),
        ("bgan.clients", (*TORCH, "onnxruntime")),
        ("bgan.clients._files", (*TORCH, "onnxruntime")),
        ("bgan.trainer.cli", (*TORCH, "onnxruntime", "numpy", "grpc")),
        ("bgan.serving.cli", (*TORCH, "onnxruntime", "numpy", "grpc", "pydantic")),
        ("bgan.clients.cli", (*TORCH, "onnxruntime", "numpy", "grpc")),
    ],
)
def test_a_module_loads_only_what_it_may(module, forbidden):
    code = f"import sys, {module}; print([name for name in {forbidden!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_public_names_of_the_clients():
    assert all(getattr(bgan.clients, name).__name__ == name for name in bgan.clients.__all__)
    assert bgan.clients.__all__ == sorted(bgan.clients.__all__)
    assert bgan.clients.__all__ == [
        "AsyncSamplingClient",
        "DeadlineExceededError",
        "ImageBatch",
        "InvalidRequestError",
        "Limits",
        "ModelFailure",
        "ModelInfo",
        "ModelNotFoundError",
        "PermissionDeniedError",
        "RetryPolicy",
        "RevisionChangedError",
        "SamplingClient",
        "SamplingError",
        "ServerOverloadedError",
        "ServerUnavailableError",
        "UnauthenticatedError",
        "tls_credentials",
    ]
