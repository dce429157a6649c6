"""A package of somebody else, which adds to bgan by entry points: installed for one test."""

import importlib
import itertools
import sys
from contextlib import contextmanager

from bgan.trainer.common import entry_points

_number = itertools.count()


def write_package(folder, code, points):
    """Write a package into a folder; `points` are (group, name, attribute). Returns its module's name."""
    module = f"strangers_{next(_number)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    groups = {}
    for group, name, attribute in points:
        groups.setdefault(group, []).append(f"{name} = {module}:{attribute}")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{chr(10).join(lines)}\n" for group, lines in groups.items())
    )
    return module


@contextmanager
def package(folder, code, *points):
    """The same, found by this process."""
    module = write_package(folder, code, points)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    entry_points._points.cache_clear()
    try:
        yield module
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        entry_points._points.cache_clear()
