"""A process that checks model files: `checker` starts it, asks it, and may end it at any time.

Each line of standard input is a request, each line of standard output its answer, both JSON. A hostile file takes
this process's memory and time, and these are limited.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from .engine import load_engine

_MEMORY_BY_FILE = 8  # the file, its message, its weights, and those as a product's kernel likes them
_TEXT_AT_MOST = 1000
_OUT_OF_MEMORY = "alloc"  # in what onnxruntime says then, such as "bad allocation" and "Failed to allocate memory"


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What is found of one file."""
    path = Path(os.fsdecode(bytes.fromhex(request["path"])))
    try:
        _limit(request["cpu_seconds"], request["memory_bytes"] + _MEMORY_BY_FILE * path.stat().st_size)
        engine = load_engine(path, max_bytes=request["max_bytes"], is_timed=True)
    except ModelFileError as error:
        if _OUT_OF_MEMORY in error.detail:
            return _out_of_memory(request)
        text = error.message.removeprefix(f"{path} ")[:_TEXT_AT_MOST]  # it may quote the file
        return {"error": text, "detail": error.detail[:_TEXT_AT_MOST], "may_pass": error.may_pass}
    except MemoryError:
        return _out_of_memory(request)
    except OSError as error:
        return {"error": f"cannot be read ({error.strerror})", "may_pass": True}
    except Exception as error:  # it is a file's fault, whatever it leads a library to
        return {"error": "cannot be checked", "detail": f"{type(error).__name__}: {error}"[:_TEXT_AT_MOST]}
    return {
        "file_sha256": engine.file_sha256,
        "tile_rows": engine.tile_rows,
        "seconds_per_image": engine.seconds_per_image,
    }


def _out_of_memory(request: dict[str, Any]) -> dict[str, Any]:
    text = f"needs more memory to run than the {request['memory_bytes'] / 2**30:.3g} GiB that it may take"
    return {"error": text, "may_pass": True, "took_too_much": True}


def _limit(cpu_seconds: int, memory_bytes: int) -> None:
    """Limit what this process may take from now on, where the system can."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: int(used.ru_utime + used.ru_stime) + cpu_seconds,
        resource.RLIMIT_CORE: 0,
    }
    for what, wanted in limits.items():
        _, hard = resource.getrlimit(what)
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def main() -> None:
    """Say that it has started, then answer requests until standard input ends."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, this process is the one to end
    print("{}", flush=True)  # noqa: T201 - the asker reads it
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201 - the asker reads it


if __name__ == "__main__":
    main()
