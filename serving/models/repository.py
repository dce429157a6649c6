"""The folder of models: what lies in it, and how the served models follow it while calls go on.

    NAME.onnx                  a model that is called as its manifest says, without a number
    NAME/VERSION.onnx          a numbered version of the model NAME; the highest is served
    NAME/VERSION/model.onnx    the same

Anything else in the folder, and what begins with a dot, is passed over.
"""

from __future__ import annotations

import logging
import re
import time
import weakref
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..config.settings import MAX_MODEL_BYTES
from ..errors import ModelFileError, StartError, printable
from .engine import Engine
from .manifest import NAME
from .registry import ModelFailure, Registry, Retired

_ADVICE = "write one with `bgan export`, or name another folder with --models"
_VERSION = re.compile("[1-9][0-9]{0,17}")
_TEXT_AT_MOST = 500
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that may hold a model, as it was when it was looked at."""

    path: Path
    model: str | None
    """The model's name, where its folder says it."""
    version: int
    """Its number; 0 where it has none."""
    state: tuple[int, int, int, int]
    """Device, inode, size and time of change: another content shows in one of them."""


def scan(folder: Path) -> dict[Path, ModelFile]:
    """The model files of a folder, by path. Raises OSError if it cannot be listed."""
    found = (look(*place) for place in _places(folder))
    return {file.path: file for file in found if file is not None}


def _places(folder: Path) -> Iterator[tuple[Path, str | None, int]]:
    """Where a model file may be, its name and its version."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix == ".onnx":
            yield path, None, 0
        elif NAME.fullmatch(path.name) and path.is_dir():
            for inner in sorted(path.iterdir()):
                if inner.suffix == ".onnx" and _VERSION.fullmatch(inner.stem):
                    yield inner, path.name, int(inner.stem)
                elif _VERSION.fullmatch(inner.name):
                    yield inner / "model.onnx", path.name, int(inner.name)


def look(path: Path, model: str | None = None, version: int = 0) -> ModelFile | None:
    """The file at a path as it is now; None if there is none."""
    if not path.is_file():
        return None
    try:
        status = path.stat()
    except FileNotFoundError:  # gone just now
        return None
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return ModelFile(path, model, version, state)


class Repository:
    """Follows a folder; not to be used by two threads at a time.

    A change counts once two looks in a row find it, so a file is not read while it is being written; one that
    was is a broken file until it changes again. A new version is loaded and probed beside the old one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        default_model: str | None = None,
        versions: int = 1,
        keep_seconds: float = 0.0,
        max_bytes: int = MAX_MODEL_BYTES,
    ) -> None:
        """versions: how many numbered versions of a model are loaded, the highest that can be served.

        keep_seconds: how long a version that is served no more can still be asked for by its revision.
        max_bytes: how large a file may be.
        """
        self._folder = folder
        self._default_model = default_model
        self._versions = versions
        self._keep_seconds = keep_seconds
        self._max_bytes = max_bytes
        self._seen: dict[Path, ModelFile] = {}
        self._files: dict[Path, ModelFile] = {}  # as they were when they were found unchanged
        self._tried: dict[Path, ModelFile] = {}  # as they were when they were loaded, or could not be
        self._engines: dict[Path, Engine] = {}
        self._failures: dict[Path, ModelFileError] = {}
        self._retired: list[Retired] = []
        self._registry: Registry | None = None

    def load(self) -> Registry:
        """Load what is there. Raises StartError if no model or not the default one can be served."""
        if not self._folder.is_dir():
            raise StartError(f"{self._folder} is not a folder; {_ADVICE}")
        self._seen = scan(self._folder)
        self._files = dict(self._seen)
        if not self._files:
            raise StartError(f"{self._folder} has no .onnx file; {_ADVICE}")
        registry = self._build()
        if not registry.engines:
            raise StartError(_quotable(str(next(iter(self._failures.values())))))
        if self._default_model is not None and self._default_model not in registry.names:
            names = ", ".join(registry.names)
            raise StartError(f"the default model {self._default_model!r} is not there; there are {names}")
        _announce(registry, None)
        return registry

    def poll(self) -> Registry | None:
        """Look for changes, and load what is new; None if the models stay as they are."""
        try:
            seen = scan(self._folder)
        except OSError as error:
            _log.warning("%s cannot be listed (%s); its models stay as they are", self._folder, error.strerror)
            seen = self._seen
        changed = {
            path
            for path in seen.keys() | self._files.keys()
            if self._seen.get(path) == seen.get(path) != self._files.get(path)
        }
        self._seen = seen
        expired = any(each.until < time.monotonic() for each in self._retired)
        if not changed and not expired:
            return None
        for path in changed:
            if path in seen:
                self._files[path] = seen[path]
            else:
                del self._files[path]
        before = self._registry
        registry = self._build()
        _announce(registry, before)
        return registry

    def _build(self) -> Registry:
        """The registry of what the files hold now, and of what is kept of before."""
        before = self._registry.engines if self._registry else []
        self._forget(self._tried.keys() - self._files.keys())
        chosen = self._choose()
        self._forget(self._engines.keys() - chosen.keys())
        active, clashes = _without_clashes(chosen, before)
        self._retire([engine for engine in before if engine not in active], active)
        self._registry = Registry(
            active,
            retired=self._retired,
            failures=[self._failure(path, error) for path, error in {**self._failures, **clashes}.items()],
            default_model=self._default_model,
        )
        return self._registry

    def _choose(self) -> dict[Path, Engine]:
        """The engines to serve: every file without a number, and the highest versions that can be served."""
        chosen: dict[Path, Engine] = {}
        groups: dict[str | Path, list[ModelFile]] = defaultdict(list)
        for path, file in sorted(self._files.items()):
            groups[file.model or path].append(file)
        for files in groups.values():
            files.sort(key=lambda file: -file.version)
            engines = ((file.path, self._engine_of(file)) for file in files)  # lower ones only if they are needed
            usable = ((path, engine) for path, engine in engines if engine is not None)
            chosen.update(islice(usable, self._versions))
        return chosen

    def _engine_of(self, file: ModelFile) -> Engine | None:
        """The engine of a file; if its content is broken, that of the content before, if there was one."""
        path = file.path
        if self._tried.get(path) != file:
            try:
                self._engines[path] = self._load(file)
                self._failures.pop(path, None)
            except ModelFileError as error:
                # Its frames, and those of its cause, would keep the engine that could not be made.
                self._failures[path] = ModelFileError(error.message, detail=error.detail)
            self._tried[path] = file
        return self._engines.get(path)

    def _load(self, file: ModelFile) -> Engine:
        engine = Engine(file.path, name=file.model, version=file.version, max_bytes=self._max_bytes)
        if look(file.path, file.model, file.version) != file:
            raise ModelFileError(f"{file.path} changed while it was read; it is read again once it stays as it is")
        known = self._engines.get(file.path)
        if known is not None and str(known) == str(engine):  # the same content, written again
            return known
        weakref.finalize(engine, _log.info, "freed %s", str(engine)).atexit = False
        return engine

    def _forget(self, paths: Iterable[Path]) -> None:
        for path in list(paths):
            self._tried.pop(path, None)
            self._failures.pop(path, None)
            self._engines.pop(path, None)

    def _retire(self, engines: Iterable[Engine], active: Collection[Engine]) -> None:
        """Keep engines for those who ask for their revision; what is served again need not be kept."""
        now = time.monotonic()
        for engine in engines:
            _log.info("%s gets no new calls; it can be asked for by its revision for a while", str(engine))
            self._retired.append(Retired(engine, self._keep_seconds, now + self._keep_seconds))
        served = {str(engine) for engine in active}
        self._retired = [each for each in self._retired if each.until > now and str(each.engine) not in served]

    def _failure(self, path: Path, error: ModelFileError) -> ModelFailure:
        file, engine = self._files[path], self._engines.get(path)
        model = file.model or (engine.manifest.name if engine else path.stem)
        text = error.message.replace(f"{self._folder}/", "")
        return ModelFailure(_quotable(model), _quotable(text), error.detail)


def _quotable(text: str) -> str:
    """A text that quotes a file's name or its manifest, fit for a log and a message: short, and one line."""
    return printable(text if len(text) <= _TEXT_AT_MOST else f"{text[:_TEXT_AT_MOST]}...")


def _announce(registry: Registry, before: Registry | None) -> None:
    """Log what is new."""
    for engine in registry.engines:
        if before is None or engine not in before.engines:
            _log.info("loaded %s", str(engine))
    for failure in registry.failures:
        if before is None or failure not in before.failures:
            rest = f"; {failure.model} goes on as it was" if failure.model in registry.names else ""
            detail = f" ({failure.detail})" if failure.detail else ""
            _log.error("%s cannot be served: %s%s%s", failure.model, failure.reason, detail, rest)


def _without_clashes(
    chosen: Mapping[Path, Engine], before: Collection[Engine]
) -> tuple[list[Engine], dict[Path, ModelFileError]]:
    """Of engines of one name and version the one that was served before, or else the first; and what is wrong."""
    taken: dict[tuple[str, int], Path] = {}
    clashes: dict[Path, ModelFileError] = {}
    for path, engine in sorted(chosen.items(), key=lambda item: item[1] not in before):
        other = taken.setdefault((engine.manifest.name, engine.version), path)
        if other != path:
            clashes[path] = ModelFileError(
                f"{path} and {other} both hold a model named {engine.manifest.name!r}; remove the first"
            )
    return [chosen[path] for path in taken.values()], clashes
