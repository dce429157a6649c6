"""The models that are served, by name, version and revision."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import ModelNotFoundError, NotAllowedError, RevisionNotServedError, foreign
from .engine import Engine


@dataclass(slots=True)
class Retired:
    """A version that is served only to calls that ask for its revision."""

    engine: Engine
    keep_seconds: float
    until: float
    """When it can be let go, on the monotonic clock; each call postpones it."""


@dataclass(frozen=True, slots=True)
class ModelFailure:
    """A file that cannot be served, and the model that it would be."""

    model: str
    reason: str
    """Which file it is, from the folder of models on, and what is wrong with it."""
    detail: str = ""
    """What a library said of it: for the log alone."""
    is_pending: bool = False
    """Whether it may soon be served: it is still being checked."""


class Registry:
    """Loaded models, one of them the default. It does not change: changed models make another registry."""

    def __init__(
        self,
        engines: Iterable[Engine],
        *,
        default_model: str | None = None,
        retired: Iterable[Retired] = (),
        failures: Iterable[ModelFailure] = (),
        patterns: tuple[str, ...] = ("*",),
    ) -> None:
        """`default_model` is what an empty name means (None: the first by name); `patterns` the names allowed."""
        self.engines = sorted(engines, key=lambda engine: (engine.manifest.name, -engine.version))
        """By name, the highest version first."""
        self.failures = tuple(failures)
        self._patterns = patterns
        self._limited: dict[tuple[str, ...], Registry] = {}
        self._retired = tuple(retired)
        self._versions: dict[str, list[Engine]] = {}
        for engine in self.engines:
            self._versions.setdefault(engine.manifest.name, []).append(engine)
        self.names = tuple(self._versions)
        self.default_model = default_model or next(iter(self.names), "")

    def find(self, name: str, *, version: int = 0, revision: str = "") -> Engine:
        """The model of that name; an empty one means the default, no version the highest, no revision any.

        Raises ModelNotFoundError, RevisionNotServedError where the model has another revision, and NotAllowedError
        for every name that no pattern matches, whether there is such a model or not.
        """
        wanted, name = name, name or self.default_model
        if not _match(self._patterns, name):
            what = f"the model '{foreign(wanted)}'" if wanted else "the default model; name one of its own"
            raise NotAllowedError(f"this token is not good for {what}")
        versions = self.versions(name)
        fitting = [engine for engine in versions if version in (0, engine.version)]
        for engine in fitting:
            if revision in ("", engine.revision):
                return engine
        for retired in self._retired:
            engine = retired.engine
            if (engine.manifest.name, engine.revision) == (name, revision) and version in (0, engine.version):
                retired.until = time.monotonic() + retired.keep_seconds
                return engine
        if fitting:
            raise RevisionNotServedError(name, wanted=revision, served=fitting[0].revision)
        if versions:
            numbers = ", ".join(str(engine.version) for engine in versions if engine.version)
            raise ModelNotFoundError(
                f"model {name!r} has no version {version}; there is {numbers or 'one without a number'}"
            )
        raise ModelNotFoundError(
            f"there is no model '{foreign(name)}'; there are {', '.join(self.names) or 'none'}"
        )

    def visible_to(self, patterns: tuple[str, ...]) -> Registry:
        """The same without the models and failures whose names no pattern matches."""
        if patterns == self._patterns:
            return self
        if patterns not in self._limited:
            self._limited[patterns] = Registry(
                [engine for engine in self.engines if _match(patterns, engine.manifest.name)],
                default_model=self.default_model,
                retired=[each for each in self._retired if _match(patterns, each.engine.manifest.name)],
                failures=[failure for failure in self.failures if _match(patterns, failure.model)],
                patterns=patterns,
            )
        return self._limited[patterns]

    @property
    def default_engine(self) -> Engine | None:
        """What calls get that name no model; None if it is not there."""
        return next(iter(self.versions(self.default_model)), None)

    def is_like(self, other: Registry) -> bool:
        """Whether it holds and tells the same."""
        mine, theirs = ((each.engines, each.failures, each._retired) for each in (self, other))
        return mine == theirs

    def versions(self, name: str) -> list[Engine]:
        """The served versions of a model, the highest first."""
        return self._versions.get(name, [])

    def kept_engines(self) -> list[Engine]:
        """Those that can be asked for: the served ones and the retired ones."""
        return [*self.engines, *(retired.engine for retired in self._retired)]


def _match(patterns: Iterable[str], name: str) -> bool:
    return patterns == ("*",) or any(fnmatchcase(name, pattern) for pattern in patterns)
