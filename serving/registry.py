"""The models that are served, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .engine import Engine
from .errors import ModelFileError, ModelNotFoundError, StartError


class Registry:
    """Loaded models and which of them is the default."""

    def __init__(self, engines: Mapping[str, Engine], *, default_model: str | None = None) -> None:
        """Raises StartError if the default model is not among them."""
        self.engines = dict(sorted(engines.items()))
        self.default_model = default_model or next(iter(self.engines))
        if self.default_model not in self.engines:
            raise StartError(
                f"the default model {default_model!r} is not there; there are {', '.join(self.engines)}"
            )

    def find(self, name: str) -> Engine:
        """The model of that name; an empty one means the default. Raises ModelNotFoundError."""
        try:
            return self.engines[name or self.default_model]
        except KeyError:
            raise ModelNotFoundError(f"there is no model {name!r}; there are {', '.join(self.engines)}") from None


def load_registry(folder: Path, *, default_model: str | None = None) -> Registry:
    """Load every .onnx file of a folder.

    Raises StartError if there is none, and ModelFileError if one of them cannot be served.
    """
    paths = sorted(folder.glob("*.onnx"))
    if not paths:
        what = "has no .onnx file" if folder.is_dir() else "is not a folder"
        raise StartError(f"{folder} {what}; write one with `bgan export`, or name another folder with --models")
    engines: dict[str, Engine] = {}
    origins: dict[str, Path] = {}
    for path in paths:
        engine = Engine(path)
        name = engine.manifest.name
        if name in engines:
            raise ModelFileError(
                f"{path} and {origins[name]} both hold a model named {name!r}; remove one of them"
            )
        engines[name], origins[name] = engine, path
    return Registry(engines, default_model=default_model)
