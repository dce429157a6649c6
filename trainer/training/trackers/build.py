"""Trackers by name."""

from collections.abc import Sequence
from importlib import import_module

from ...common.errors import ConfigError
from ...config.trackers import NO_TRACKER, TRACKERS
from ..callbacks import Callback


def build_trackers(names: Sequence[str]) -> list[Callback]:
    """The trackers of these names, each once; "none", alone, is none of them.

    Raises ConfigError for another name, and UserError where the package of one is not installed.
    """
    if list(names) == [NO_TRACKER]:
        return []
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(
                f"tracker is {name!r}; choose among {', '.join(TRACKERS)}, or {NO_TRACKER} and no other"
            )
    modules = {name: import_module(f".{name}", __package__) for name in names}
    return [getattr(module, TRACKERS[name])() for name, module in modules.items()]
