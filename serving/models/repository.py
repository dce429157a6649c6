"""The folder of models: how the served models follow it while calls run."""

import logging
import math
import time
import weakref
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config.limits import MAX_MODEL_BYTES
from ..errors import ModelFileError, StartError, printable
from .checked import is_trusted, open_checked
from .checker import Checker
from .engine import Engine
from .model_files import FileSnapshot, scan
from .providers import CPU, Provider
from .registry import ModelFailure, Registry, Retired

_ADVICE = "write one with `bgan export`, or name another folder with --models"
_TEXT_AT_MOST = 500
_PATIENCE_SECONDS = 3.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Loaded:
    """What came of loading a file."""

    file: FileSnapshot
    engine: Engine | None
    """That of this content, or, if this is broken, of the content before; None: there never was one."""
    error: ModelFileError | None = None
    is_pending: bool = False
    """Whether it is still being checked."""
    is_late: bool = False
    """Whether nobody waits for that any more."""
    try_again_at: float = math.inf
    """When to load it again though it stays as it is, on the monotonic clock: its error may pass."""


@dataclass(eq=False)
class Repository:
    """Follows a folder; not to be used by two threads at a time.

    A change counts once two polls in a row find it, so a file is not read while it is being written; one that was
    is a broken file until it changes again. A new version is loaded and probed beside the old one.

    Files are checked in other processes; those of the package itself are trusted as its code is. What a check lets
    through and this process then cannot open is the fault of the moment, and tried again at every poll.
    """

    folder: Path
    default_model: str | None = None
    versions: int = 1
    """How many numbered versions of a model are loaded, the highest that can be served."""
    keep_seconds: float = 0.0
    """How long a version that is no longer served can still be asked for by its revision."""
    max_bytes: int = MAX_MODEL_BYTES
    provider: Provider = CPU
    """What computes the models."""
    is_followed: bool = True
    """Whether there will be polls."""
    checker: Checker | None = None
    """Another repository's, to share its processes; None: one of its own."""

    def __post_init__(self) -> None:
        self._checker = self.checker or Checker(self.max_bytes)
        self._patience_seconds = _PATIENCE_SECONDS if self.is_followed else math.inf
        self._seen: dict[Path, FileSnapshot] = {}  # at the last poll
        self._files: dict[Path, FileSnapshot] = {}  # as they were when two polls in a row found them so
        self._loaded: dict[Path, _Loaded] = {}
        self._retired: list[Retired] = []
        self._registry = Registry(())

    def load(self) -> Registry:
        """Load what is there. Raises StartError if no model or not the default one can be served."""
        try:
            if not self.folder.is_dir():
                raise StartError(f"{self.folder} is not a folder; {_ADVICE}")
            self._seen = scan(self.folder)
        except OSError as failure:
            raise StartError(f"{self.folder} cannot be listed ({failure.strerror})") from failure
        self._files = dict(self._seen)
        if not self._files:
            raise StartError(f"{self.folder} has no .onnx file; {_ADVICE}")
        registry = self._build()
        while self._pending() and not self._is_enough(registry) and not self._checker.is_closed:
            self._checker.wait(self._patience_seconds)
            registry = self._build()
        self._checker.is_polite = True
        if not self.is_followed:
            self.close()
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
            seen = scan(self.folder, self._seen)
        except OSError as error:
            _log.warning("%s cannot be listed (%s); its models stay as they are", self.folder, error.strerror)
            seen = self._seen
        files = {}
        for path in seen.keys() | self._files.keys():
            settled = seen.get(path) if seen.get(path) == self._seen.get(path) else self._files.get(path)
            if settled is not None:
                files[path] = settled
        self._seen = seen
        self._checker.wait(0)
        now = time.monotonic()
        is_due = any(self._is_due(each) for each in self._loaded.values())
        if files == self._files and not is_due and not any(each.until < now for each in self._retired):
            return None
        self._files = files
        before, registry = self._registry, self._build()
        if registry.is_like(before):  # what was tried again failed again
            return None
        _announce(registry, before)
        return registry

    def close(self) -> None:
        """End the checks, and a `load` or `poll` that waits for them; any thread may."""
        self._checker.close()

    def _is_enough(self, registry: Registry) -> bool:
        """Whether there is what calls get that name no model."""
        return bool(registry.engines) and self.default_model in (None, *registry.names)

    def _build(self) -> Registry:
        """The registry of what the files hold now, and of what is kept of before."""
        before = self._registry.engines
        self._loaded = {path: each for path, each in self._loaded.items() if path in self._files}
        chosen = self._choose_patiently()
        self._loaded = {path: each for path, each in self._loaded.items() if path in chosen or not each.engine}
        self._checker.keep_only(self._pending())
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

    def _choose_patiently(self) -> dict[Path, Engine]:
        """The engines to serve, once all files are checked, or no check has ended for some seconds.

        Those whose check takes longer are served by a later poll.
        """
        chosen = self._choose(is_final=False)
        while awaited := self._pending(is_late=False):
            self._checker.wait(self._patience_seconds)
            chosen = self._choose(is_final=False)
            if self._pending(is_late=False) == awaited:
                break
        for each in self._loaded.values():
            each.is_late = each.is_pending
        return self._choose(is_final=True) if self._pending() else chosen

    def _choose(self, *, is_final: bool) -> dict[Path, Engine]:
        """The engines to serve: every file without a number, and the highest versions that can be served.

        A version that is still being checked keeps the place of a lower one, unless this is final.
        """
        chosen: dict[Path, Engine] = {}
        groups: dict[str | Path, list[FileSnapshot]] = defaultdict(list)
        for path, file in sorted(self._files.items()):
            groups[file.model or path].append(file)
        for files in groups.values():
            places = self.versions
            for file in sorted(files, key=lambda file: -file.version):
                if places == 0:  # lower ones are loaded only if they are needed
                    break
                loaded = self._loaded_of(file)
                if loaded.engine is not None:
                    chosen[file.path] = loaded.engine
                places -= loaded.engine is not None or (loaded.is_pending and not is_final)
        return chosen

    def _loaded_of(self, file: FileSnapshot) -> _Loaded:
        """What came of a file; if its content is broken, its engine is that of the content before."""
        loaded = self._loaded.get(file.path)
        if loaded is None or loaded.file != file or self._is_due(loaded):
            loaded = self._loaded[file.path] = self._load(file, loaded)
        return loaded

    def _is_due(self, loaded: _Loaded) -> bool:
        if loaded.is_pending:
            return self._checker.has(loaded.file)
        return loaded.try_again_at <= time.monotonic()

    def _pending(self, *, is_late: bool | None = None) -> set[FileSnapshot]:
        """The files that are still being checked; of these those that are late, or are not."""
        pending = (each for each in self._loaded.values() if each.is_pending)
        return {each.file for each in pending if is_late in (None, each.is_late)}

    def _load(self, file: FileSnapshot, last: _Loaded | None) -> _Loaded:
        before = last.engine if last else None
        found = None
        if not is_trusted(file) and (found := self._checker.take(file)) is None:
            error = last.error if last and last.file == file else None
            error = error or ModelFileError(f"{file.path} is still being checked")
            return _Loaded(file, before, error, is_pending=True)
        if found is not None and found.error is not None:
            again = time.monotonic() + found.pause_seconds if found.error.may_pass else math.inf
            return _Loaded(file, before, found.error, try_again_at=again)
        if before is not None and found is not None and before.file_sha256 == found.file_sha256:
            return _Loaded(file, before)  # the same content, written again
        try:
            engine = open_checked(file, found, self.max_bytes, self.provider)
        except (ModelFileError, MemoryError, OSError) as error:
            # Its frames, and those of its cause, would keep the engine that could not be made.
            text = error.message if isinstance(error, ModelFileError) else f"{file.path} cannot be loaded now"
            detail = getattr(error, "detail", "")
            return _Loaded(file, before, ModelFileError(text, detail=detail), try_again_at=0)
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
        is_pending = self._loaded[path].is_pending
        return ModelFailure(_quotable(model), _quotable(text), _quotable(error.detail), is_pending)


def _quotable(text: str) -> str:
    """A text that quotes a file's name or its manifest, fit for a log and a message: short, and one line."""
    return printable(text if len(text) <= _TEXT_AT_MOST else f"{text[:_TEXT_AT_MOST]}...")


def _announce(registry: Registry, before: Registry) -> None:
    for engine in registry.engines:
        if engine not in before.engines:
            _log.info("loaded %s", str(engine))
    for failure in registry.failures:
        if failure in before.failures:
            continue
        if failure.is_pending:
            _log.info("%s is not served yet: %s", failure.model, failure.reason)
        else:
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
