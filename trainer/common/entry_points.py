"""What other packages add to bgan by name, as entry points: networks, objectives, estimators, metrics and readers.

Their names are read from the metadata of the packages that are installed; only what is used is imported.
"""

import re
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import ConfigError
from .text import first_line

NETWORKS = "bgan.networks"
"""Of generators: called with image_shape, latent_size and class_count, it gives a module."""
DISCRIMINATORS = "bgan.discriminators"
"""Called with image_shape and class_count, it gives a module."""
OBJECTIVES = "bgan.objectives"
"""An `Objective`."""
ESTIMATORS = "bgan.estimators"
"""Called with image_shape, it gives an `Estimator`."""
METRICS = "bgan.metrics"
"""A `Metric`."""
READERS = "bgan.readers"
"""Called with a path, it gives an array of images, or a pair of it and one of labels."""
GIVEN = "own:"
"""What begins the name of a part that was given from Python, and that only Python can give again."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # they become part of the names of runs


def registered(group: str) -> tuple[str, ...]:
    """The names that other packages add to a group."""
    return tuple(sorted(filter(_NAME.fullmatch, _points(group))))


def load(group: str, name: str) -> Any:
    """What a name stands for. Raises ConfigError where no package has it, several have, or it is broken."""
    points = _points(group).get(name, [])
    if not points:
        raise ConfigError(f"no installed package has the entry point {name!r} of {group}; install it again")
    if len(points) > 1:
        raise ConfigError(f"several packages have {shown(group, name)}; uninstall all but one")
    try:
        return points[0].load()
    except (Exception, SystemExit) as error:  # whatever its import stumbles on
        raise ConfigError(
            f"{shown(group, name)} cannot be imported ({type(error).__name__}: {first_line(error)})"
        ) from error


def shown(group: str, name: str) -> str:
    """An entry point as errors call it."""
    points = _points(group).get(name, [])
    origins = ", ".join(f"{point.value} of {point.dist.name if point.dist else '?'}" for point in points)
    return f"the entry point {name!r} of {group} ({origins})"


def is_given(name: str) -> bool:
    """Whether a name is that of a part that was given from Python."""
    return name.startswith(GIVEN)


@cache
def _points(group: str) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        others = found.setdefault(point.name, [])
        if point not in others:  # one package that is found by two paths
            others.append(point)
    return found
