"""The folder of models: what it holds, and how the served models follow it while calls run.

    NAME.onnx                  a model that is called as its manifest says, without a number
    NAME/VERSION.onnx          a numbered version of the model NAME; the highest is served
    NAME/VERSION/model.onnx    the same

Anything else in the folder, and every name that begins with a dot, is ignored.
"""

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
from .engine import Engine, load_engine
from .manifest import NAME
from .registry import ModelFailure, Registry, Retired

_ADVICE = "write one with `bgan export`, or name another folder with --models"
_VERSION = re.compile("[1-9][0-9]{0,17}")
_TEXT_AT_MOST = 500
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """A file that may hold a model, as it was at one moment."""

    path: Path
    model: str | None
    """The model's name, where its folder says it."""
    version: int
    """Its number; 0 where it has none."""
    state: tuple[int, ...]
    """Device, inode, size and times of change: another content shows in one of them."""


@dataclass(slots=True)
class _Loaded:
    """What came of loading a file."""

    file: FileSnapshot
    engine: Engine | None
    """That of this content, or, if this is broken, of the content before; None: there never was one."""
    error: ModelFileError | None = None


def scan(folder: Path) -> dict[Path, FileSnapshot]:
    """The model files of a folder, by path. Raises OSError if it cannot be listed."""
    found = (snapshot(*candidate) for candidate in _candidates(folder))
    return {file.path: file for file in found if file is not None}


def _candidates(folder: Path) -> Iterator[tuple[Path, str | None, int]]:
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


def snapshot(path: Path, model: str | None = None, version: int = 0) -> FileSnapshot | None:
    """The file at a path as it is now; None if there is none."""
    if not path.is_file():
        return None
    try:
        status = path.stat()
    except FileNotFoundError:  # gone just now
        return None
    # The second time of change is the kernel's own: nobody sets it back, as `cp -p` does with the first.
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return FileSnapshot(path, model, version, state)


@dataclass(eq=False)
class Repository:
    """Follows a folder; not to be used by two threads at a time.

    A change counts once two polls in a row find it, so a file is not read while it is being written; one that was
    is a broken file until it changes again. A new version is loaded and probed beside the old one.
    """

    folder: Path
    default_model: str | None = None
    versions: int = 1
    """How many numbered versions of a model are loaded, the highest that can be served."""
    keep_seconds: float = 0.0
    """How long a version that is no longer served can still be asked for by its revision."""
    max_bytes: int = MAX_MODEL_BYTES

    def __post_init__(self) -> None:
        self._seen: dict[Path, FileSnapshot] = {}  # at the last poll
        self._files: dict[Path, FileSnapshot] = {}  # as they were when two polls in a row found them so
        self._loaded: dict[Path, _Loaded] = {}
        self._retired: list[Retired] = []
        self._registry = Registry(())

    def load(self) -> Registry:
        """Load what is there. Raises StartError if no model or not the default one can be served."""
        if not self.folder.is_dir():
            raise StartError(f"{self.folder} is not a folder; {_ADVICE}")
        self._seen = scan(self.folder)
        self._files = dict(self._seen)
        if not self._files:
            raise StartError(f"{self.folder} has no .onnx file; {_ADVICE}")
        registry = self._build()
        if not registry.engines:
            error = next(each.error for each in self._loaded.values() if each.error is not None)
            raise StartError(_quotable(str(error)))
        if self.default_model is not None and self.default_model not in registry.names:
            names = ", ".join(registry.names)
            raise StartError(f"the default model {self.default_model!r} is not there; there are {names}")
        _announce(registry, Registry(()))
        return registry

    def poll(self) -> Registry | None:
        """Look for changes, and load what is new; None if the models stay as they are."""
        try:
            seen = scan(self.folder)
        except OSError as error:
            _log.warning("%s cannot be listed (%s); its models stay as they are", self.folder, error.strerror)
            seen = self._seen
        files = {}
        for path in seen.keys() | self._files.keys():
            settled = seen.get(path) if seen.get(path) == self._seen.get(path) else self._files.get(path)
            if settled is not None:
                files[path] = settled
        self._seen = seen
        expired = any(each.until < time.monotonic() for each in self._retired)
        if files == self._files and not expired:
            return None
        self._files = files
        before, registry = self._registry, self._build()
        _announce(registry, before)
        return registry

    def _build(self) -> Registry:
        """The registry of what the files hold now, and of what is kept of before."""
        before = self._registry.engines
        self._loaded = {path: each for path, each in self._loaded.items() if path in self._files}
        chosen = self._choose()
        self._loaded = {path: each for path, each in self._loaded.items() if path in chosen or not each.engine}
        active, errors = _without_clashes(chosen, before)
        self._retire([engine for engine in before if engine not in active], active)
        errors = {path: each.error for path, each in self._loaded.items() if each.error} | errors
        self._registry = Registry(
            active,
            retired=self._retired,
            failures=[self._failure(path, error) for path, error in errors.items()],
            default_model=self.default_model,
        )
        return self._registry

    def _choose(self) -> dict[Path, Engine]:
        """The engines to serve: every file without a number, and the highest versions that can be served."""
        chosen: dict[Path, Engine] = {}
        groups: dict[str | Path, list[FileSnapshot]] = defaultdict(list)
        for path, file in sorted(self._files.items()):
            groups[file.model or path].append(file)
        for files in groups.values():
            files.sort(key=lambda file: -file.version)
            engines = ((file.path, self._engine_of(file)) for file in files)  # lower ones only if they are needed
            usable = ((path, engine) for path, engine in engines if engine is not None)
            chosen.update(islice(usable, self.versions))
        return chosen

    def _engine_of(self, file: FileSnapshot) -> Engine | None:
        """The engine of a file; if its content is broken, that of the content before, if there was one."""
        loaded = self._loaded.get(file.path)
        if loaded is None or loaded.file != file:
            loaded = self._loaded[file.path] = self._load(file, loaded.engine if loaded else None)
        return loaded.engine

    def _load(self, file: FileSnapshot, before: Engine | None) -> _Loaded:
        try:
            engine = load_engine(file.path, name=file.model, version=file.version, max_bytes=self.max_bytes)
            if snapshot(file.path, file.model, file.version) != file:
                raise ModelFileError(f"{file.path} changed while it was read; it is read again once it settles")
        except ModelFileError as error:
            # Its frames, and those of its cause, would keep the engine that could not be made.
            return _Loaded(file, before, ModelFileError(error.message, detail=error.detail))
        if before is not None and str(before) == str(engine):  # the same content, written again
            return _Loaded(file, before)
        weakref.finalize(engine, _log.info, "freed %s", str(engine)).atexit = False
        return _Loaded(file, engine)

    def _retire(self, engines: Iterable[Engine], active: Collection[Engine]) -> None:
        """Keep engines for those who ask for their revision; what is served again need not be kept."""
        now = time.monotonic()
        for engine in engines:
            _log.info("%s gets no new calls; for a while it can still be asked for by its revision", str(engine))
            self._retired.append(Retired(engine, self.keep_seconds, now + self.keep_seconds))
        served = {str(engine) for engine in active}
        self._retired = [each for each in self._retired if each.until > now and str(each.engine) not in served]

    def _failure(self, path: Path, error: ModelFileError) -> ModelFailure:
        file, engine = self._files[path], self._loaded[path].engine
        model = file.model or (engine.manifest.name if engine else path.stem)
        text = error.message.replace(f"{self.folder}/", "")
        return ModelFailure(_quotable(model), _quotable(text), error.detail)


def _quotable(text: str) -> str:
    """A text that quotes a file's name or its manifest, fit for a log and a message: short, and one line."""
    return printable(text if len(text) <= _TEXT_AT_MOST else f"{text[:_TEXT_AT_MOST]}...")


def _announce(registry: Registry, before: Registry) -> None:
    for engine in registry.engines:
        if engine not in before.engines:
            _log.info("loaded %s", str(engine))
    for failure in registry.failures:
        if failure not in before.failures:
            rest = f"; {failure.model} stays as it was" if failure.model in registry.names else ""
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
