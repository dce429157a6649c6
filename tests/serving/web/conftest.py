"""One server with an HTTP port for all tests that do not need their own."""

import shutil

import httpx
import pytest

from bgan.serving.config.gallery import RUNTIME_FILES
from tests.conftest import FOLDER
from tests.kit.servers import server


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    """A server of models with and without classes, over HTTP and gRPC."""
    folder = tmp_path_factory.mktemp("web")
    for path in (*(FOLDER / "models").glob("*.onnx"), *(FOLDER / "classes").glob("*.onnx")):
        shutil.copy(path, folder)
    runtime = tmp_path_factory.mktemp("runtime")
    for name in RUNTIME_FILES:
        (runtime / name).write_text(name)
    options = "--http-port", 0, "--http-runtime", runtime, "--default-model", "mlp-dbn"
    with server(folder, *options, "--max-image-count", 10**6) as process:
        yield process


@pytest.fixture(scope="module")
def http(web):
    with httpx.Client(base_url=web.http, timeout=60) as client:
        yield client
