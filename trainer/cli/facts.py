"""What `bgan doctor` says of bgan, the machine, the packages and the trainer's folders. It loads no torch."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.files import cache_folder, data_root
from ..common.stores import is_url, without_secrets

_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_LEFT_OUT = {"dev", "bench", "soak", "kuberay", "docs"}  # extras of those who work on bgan
# The folder of each published data set below that of all, as torchvision has them.
_DATA_SETS = ("MNIST", "EMNIST", "FashionMNIST", "KMNIST", "QMNIST", "omniglot-py")
_SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "HEADERS")


def facts() -> dict[str, dict[str, Any]]:
    """Facts by name, under titles."""
    return {
        "bgan": {
            "version": _version_of("bgan"),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "executable": sys.executable,
            "package": str(Path(__file__).parents[2]),
        },
        "machine": {
            "system": _system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": _memory_gib(),
            "gpus": _gpus(),
        },
        "extras": dict(_extras()),
        "folders": {
            "data": _folder(data_root),
            "cache": _folder(cache_folder),
            "runs": _described(Path(os.environ.get("BGAN_RUNS_DIR") or "runs")),
        },
        "data_sets": {"digits": "bundled", **_data_sets()},
        "variables": {name: _shown(name) for name in sorted(os.environ) if name.startswith(("BGAN_", "OTEL_"))},
    }


def _system() -> str:
    """The kernel, the C library and, of Linux, the distribution; `platform.platform` would start a process."""
    parts = [f"{platform.system()} {platform.release()}", "-".join(filter(None, platform.libc_ver()))]
    with suppress(OSError, AttributeError):
        parts.append(platform.freedesktop_os_release()["PRETTY_NAME"])
    return ", ".join(filter(None, parts))


def _extras() -> Iterator[tuple[str, dict[str, str | None]]]:
    """Each extra, with the versions of its packages; None: it is not installed."""
    found: dict[str, dict[str, str | None]] = {"base": {}}
    for requirement in requires("bgan") or ():
        extra = _EXTRA.search(requirement)
        name = extra[1] if extra else "base"
        if name not in _LEFT_OUT:
            package = re.split(r"[\s\[<>=!~;(]", requirement, maxsplit=1)[0]
            found.setdefault(name, {})[package] = _version_of(package)
    yield from found.items()


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows has none
        return None


def _gpus() -> list[str]:
    """Those of NVIDIA's driver, as its own files say."""
    paths = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return [
        line.partition(":")[2].strip()
        for path in paths
        for line in path.read_text(errors="replace").splitlines()
        if line.startswith("Model")
    ]


def _folder(find: Any) -> str:
    try:
        return _described(find())
    except (UserError, OSError) as error:
        return str(error)


def _described(path: Path) -> str:
    """A folder, and whether it can be written to; one that is closed to this user is no reason to say nothing."""
    try:
        if not path.is_dir():
            return f"{path} (not there yet)"
        free = shutil.disk_usage(path).free / 2**30
    except OSError as error:
        return f"{path} ({error.strerror})"
    return f"{path} ({'' if os.access(path, os.W_OK) else 'not writable, '}{free:.1f} GiB free)"


def _data_sets() -> dict[str, str]:
    try:
        root = data_root()
    except (UserError, OSError):
        return {}
    return {name: str(root / name) for name in _DATA_SETS if os.path.isdir(root / name)}


def _shown(name: str) -> str:
    if any(word in name for word in _SECRETS):
        return "(set)"
    value = os.environ[name]
    return without_secrets(value) if is_url(value) else value
