"""The trainer: data, binary neurons, networks, objectives, training, and export to ONNX. Needs torch.

What it exports is imported when it is first used, so that `import bgan.trainer` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.exploring import ExploredPage as ExploredPage
    from .api.exploring import explore as explore
    from .api.measuring import diagnose_gradients as diagnose_gradients
    from .api.measuring import evaluate as evaluate
    from .api.measuring import export as export
    from .api.run import Run as Run
    from .api.training import train as train
    from .common.errors import ConfigError as ConfigError
    from .common.errors import UserError as UserError
    from .config.training import TrainingConfig as TrainingConfig
    from .data.catalog import load_dataset as load_dataset
    from .data.dataset import BinaryDataset as BinaryDataset

_EXPORTS = {
    "api.exploring": ("ExploredPage", "explore"),
    "api.measuring": ("diagnose_gradients", "evaluate", "export"),
    "api.run": ("Run",),
    "api.training": ("train",),
    "common.errors": ("ConfigError", "UserError"),
    "config.training": ("TrainingConfig",),
    "data.catalog": ("load_dataset",),
    "data.dataset": ("BinaryDataset",),
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted(_MODULES)  # noqa: PLE0605 - the same names are imported above, for type checkers


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
