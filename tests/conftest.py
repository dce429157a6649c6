"""Fixtures that every folder of tests shares."""

import os
import signal
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.fixtures.write import FOLDER
from tests.kit.servers import server
from tests.kit.stores import s3_server

pytest_plugins = ["tests.kit.tiers"]

# Some tests fork (preexec_fn) beside gRPC's threads; its fork support would start some in the child, and abort it
# (grpc/grpc issue 43055).
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# A shell starts what it runs in the background with SIGINT ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
_SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in [name for name in os.environ if name.startswith("BGAN_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _one_registry():
    """torch.onnx builds its table of operators anew for each export, which is half of the time of a small one."""
    if (exporter := sys.modules.get("torch.onnx._internal.exporter._registration")) is not None:
        _keep_registry(exporter.ONNXRegistry)


@cache
def _keep_registry(registry):
    registry.from_torchlib = staticmethod(cache(registry.from_torchlib))


@pytest.fixture(scope="session")
def mnist_dir():
    """A data directory that has MNIST."""
    for folder in (os.environ.get("BGAN_DATA_DIR"), _SHARED / "mnist", ROOT / "data"):
        if folder and (Path(folder) / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
            return Path(folder)
    pytest.skip("MNIST is not here; name a folder that has MNIST/raw with BGAN_DATA_DIR")


@pytest.fixture(scope="session")
def cache_environment(tmp_path_factory, worker_id):
    """A cache of classifiers and floors that all processes of one test run share."""
    folder = tmp_path_factory.getbasetemp()
    root = folder if worker_id == "master" else folder.parent
    return {"BGAN_CACHE_DIR": str(root / "cache")}


@pytest.fixture(scope="session")
def models():
    """A folder of three small models: an MLP with DBN, one with SBN, and a CNN of another shape."""
    return FOLDER / "models"


@pytest.fixture(scope="session")
def small_models():
    """A folder of one model."""
    return FOLDER / "small"


@pytest.fixture(scope="session")
def other_models():
    """A folder of a model of the same name with other weights."""
    return FOLDER / "other"


@pytest.fixture(scope="session")
def gated_models():
    """A folder of models with gates, two MLPs and a CNN, and of one with binary hidden neurons."""
    return FOLDER / "gated"


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory):
    """The port of a store of the S3 protocol, which checks signatures; a test takes a folder of its own in it."""
    with s3_server("nanio", tmp_path_factory.mktemp("nanio")) as port:
        yield port


@pytest.fixture(scope="session")
def running(models):
    """A server of those models, in its own process."""
    with server(models, "--default-model", "mlp-dbn", "--max-image-count", "100000") as process:
        yield process


@pytest.fixture(scope="session")
def classes_server():
    """A server of class-conditional models, "sbn" and "dbn", and of one that is not, "plain"."""
    with server(FOLDER / "classes", "--default-model", "sbn") as process:
        yield process
