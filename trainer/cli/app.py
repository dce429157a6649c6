"""The `bgan` command: its surroundings made fit, and its errors in one line.

Nothing is imported here that takes time, so that Ctrl-C is answered from the first moment.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from ..common.text import printable

# Which extra brings a package that an import can find missing.
_EXTRAS = {
    "train": (
        *("torch", "torchvision", "onnx", "onnxscript", "safetensors", "sklearn", "tensorboard", "scipy"),
        *("matplotlib", "markdown_it"),
    ),
    "data": ("h5py", "pyarrow"),
    "bulk": ("fsspec",),
    "ray": ("ray",),
    "serve": ("onnxruntime", "grpc_health", "grpc_reflection", "pydantic_settings", "pydantic"),
}
_INTERRUPTED = 128 + signal.SIGINT
_OUT_OF_MEMORY = re.compile("out of memory|allocate memory|bad.alloc", re.IGNORECASE)  # of torch and onnxruntime
_TEXT_AT_MOST = 500
_MAX_MESSAGE = 2000


def main() -> None:
    """Run the command line; what is meant for the user is one line on stderr."""
    _adapt_surroundings()
    try:
        with _quiet_interrupts():
            from .host import build_app

            build_app()()
    except KeyboardInterrupt:
        _say_stopped()
        sys.exit(_INTERRUPTED)
    except ModuleNotFoundError as error:
        _fail(_missing_package(error), 1, error)
    except OSError as error:
        _fail(f"{error.filename or 'file system'}: {error.strerror or error}", 1, error)
    except Exception as error:
        exit_code: int | None = getattr(error, "exit_code", None)
        if exit_code is not None:  # it is for the user to read; every room has its own tree of such errors
            _fail(str(error), exit_code, error)
        reason = next(iter(str(error).strip().splitlines()), "")[:_TEXT_AT_MOST]
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
            advice = "ask for less at a time, or raise the limit (ulimit -v, a container's)"
            _fail(f"there is not enough memory ({reason or 'none is left'}); {advice}", 1, error)
        _fail(f"internal error: {type(error).__name__}: {reason}; BGAN_DEBUG=1 shows where", 70, error)


def _adapt_surroundings() -> None:
    """Bear closed streams, an output that cannot show every character, and a width that shows nothing."""
    for number in range(3):  # of those that are closed, else a file that is opened gets what libraries print there
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        if not re.fullmatch(r"0*(?:[2-9]\d|[1-9]\d{2,4})", os.environ.get(name, "80")):
            del os.environ[name]
    if (
        sys.argv[1:2] != ["serve"] and "grpc" not in sys.modules
    ):  # its notes say what the one line of an error says
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


@contextmanager
def _quiet_interrupts() -> Iterator[None]:
    """Let Ctrl-C end the process at once while a module is imported, which bears no KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or of another program
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            if sys.stderr is not None and sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # the cursor, which a progress bar hides
            _say_stopped()
            os._exit(_INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def _say_stopped() -> None:
    """Let the first of several processes that train together say that they end: the command itself is silent."""
    if os.environ.get("RANK") == "0" and "MASTER_ADDR" in os.environ:
        os.write(2, b"bgan: SIGINT: stopped; the same command starts or resumes the run\n")


def _missing_package(error: ModuleNotFoundError) -> str:
    package = (error.name or "").split(".")[0]
    extra = next((extra for extra, packages in _EXTRAS.items() if package in packages), None)
    if extra is None:
        return f"the package {package!r} is missing; install bgan again"
    return f"this command needs the package {package!r}: pip install 'bgan[{extra}]'"


def _fail(message: str, exit_code: int, error: BaseException) -> NoReturn:
    if os.environ.get("BGAN_DEBUG"):
        raise error
    from typer import colors, secho

    line = printable(message, _MAX_MESSAGE)  # it quotes files, folders and servers
    with suppress(OSError):  # the terminal is gone
        secho(f"bgan: {line}", fg=colors.RED, err=True)
    sys.exit(exit_code)
