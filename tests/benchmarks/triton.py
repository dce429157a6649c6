"""Triton through pytriton, where `make bench` could install it."""

import tempfile
from contextlib import ExitStack, contextmanager
from importlib.metadata import distributions
from pathlib import Path

from tests.conftest import ROOT

from .processes import Server, running

BATCH_SIZE = 1024
_FOLDER = ROOT / ".tools" / "triton"
_PYTHON = _FOLDER / "bin" / "python"


class SkippedError(Exception):
    """Triton is not here, or does not start; says why."""


def version() -> str | None:
    """The version of pytriton, if it is here."""
    libraries = [str(path) for path in _FOLDER.glob("lib/python*/site-packages")]
    return next((each.version for each in distributions(name="nvidia-pytriton", path=libraries)), None)


@contextmanager
def serving(models: Path):
    """A Triton with all models of a folder: yields the server and a function that gives options for `load`.

    Those are options(name of the model, images of a request: 1 or BATCH_SIZE). Raises SkippedError.
    """
    if not _PYTHON.exists():
        raise SkippedError("pytriton could not be installed for this machine and Python")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        server = running("triton_server", models, folder, python=_PYTHON, log=folder / "log")
        try:
            process, ready = stack.enter_context(server)
        except RuntimeError as error:
            raise SkippedError(f"it does not start ({error})") from error

        def options(model, image_count):
            requests = folder / f"{model}-{image_count}.bin"
            return ("--method", "/inference.GRPCInferenceService/ModelInfer", "--requests", requests)

        yield Server(f"localhost:{ready['port']}", process.pid), options
