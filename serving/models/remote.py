"""Models behind a URL that fsspec reads, such as s3://bucket/models: a local folder is kept in step with them.

A file comes into the folder whole or not at all, and stays while the store is away, so whoever follows the folder
has the last good set. The libraries of stores are loaded here alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

from ..config.limits import MAX_MODEL_BYTES, MODEL_CACHE_BYTES
from ..config.stores import open_store, redacted, store_error, without_secrets
from ..errors import StoreError, printable
from .model_files import address_of

_FLAT = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf"}  # one listing has all that is below a prefix
_WEB = {"http", "https"}
_DEPTH = 3  # of NAME/VERSION/model.onnx
_SPARE_VERSIONS = 1  # beyond those that are served, should the highest be invalid
_TRIES = 3  # while a file is replaced again and again
_STATE, _LOCK, _PARTS = ".store.json", ".lock", ".*.part"
# What tells one content from another; where there is no tag, all that is known of its time.
_TAGS = "ETag", "etag", "blob_id", "oid", "md5Hash"
_TIMES = "mtime", "ino", "LastModified", "Last-Modified", "last_modified", "updated", "created"
_NAMED_BY = "with BGAN_MODEL_CACHE, or --model-cache of bgan serve"  # other commands have no option for it
_log = logging.getLogger(__name__)


class Mirror:
    """A local folder that `sync` brings in step with a store; not to be used by two threads at a time.

    Several processes may have the same folder: they take turns.
    """

    def __init__(
        self,
        url: str,
        cache: Path | None = None,
        *,
        versions: int = 1,
        max_model_bytes: int = MAX_MODEL_BYTES,
        max_bytes: int = MODEL_CACHE_BYTES,
        models: Collection[str] = (),
    ) -> None:
        """`cache` has a folder for each URL; None: the user's own. Raises StoreError where the user has none.

        `models`: what the files or folders of those that are wanted are called; none: all.

        Of each model the highest `versions` are fetched, and one to spare; of all files those that fit into
        `max_bytes`, the highest versions first. While a file is fetched, its bytes come on top.
        """
        self.shown = printable(without_secrets(url)).rstrip("/")
        """The URL, fit for a log."""
        digest = hashlib.sha256(url.rstrip("/").encode(errors="replace")).hexdigest()
        self.folder = (cache or own_cache()) / digest[:16]
        self._url = url
        self._versions = versions + _SPARE_VERSIONS
        self._max_model_bytes, self._max_bytes = max_model_bytes, max_bytes
        self._models = {*models}
        self._store: _Files | None = None
        self._problems: dict[str, str] = {}

    @property
    def has_models(self) -> bool:
        """Whether the folder has files, though the store may be away."""
        return any(_is_there(self.folder / name, content) for name, content in self._kept().items())

    def sync(self) -> None:
        """Fetch what is new, and remove what is gone.

        What keeps a single file from being fetched is logged, once; its last content stays. Raises StoreError, and
        leaves everything as it is, where the store cannot be listed or the folder cannot be written to.
        """
        known, self._problems = self._problems, {}
        try:
            with self._locked():
                self._store = self._store or _Files(self._url, self.shown)
                kept = self._follow(self._store)
        except StoreError as error:
            self._problems = known
            if self._store is not None and error.fault == "forbidden":
                self._store.close()
                self._store = None  # the next one reads the credentials again
            raise
        except OSError as error:
            text = f"{self.folder} cannot keep the models of {self.shown} ({error.strerror}); name another folder"
            raise StoreError(f"{text} {_NAMED_BY}") from error
        for name, text in self._problems.items():
            if known.get(name) != text:
                _log.warning("%s", text)
        if not kept:
            nothing = f"{self.shown} has no .onnx file where models are looked for; write one with `bgan export`"
            raise StoreError(next(iter(self._problems.values()), nothing))

    def _follow(self, store: _Files) -> dict[str, _Content]:
        """Do all that `sync` does with a store; returns what the folder has then."""
        there, kept = store.list(), self._kept()
        names = {*map(_model_of, there)}
        if missing := self._models - names:
            text = f"{self.shown} has no model {min(missing)!r}; there are {', '.join(sorted(names)) or 'none'}"
            raise StoreError(text, fault="missing")
        wanted = {name: content for name, content in there.items() if self._is_wanted(name)}
        chosen = self._choose(store, wanted, kept)
        surplus = sorted(filter(self._is_wanted, kept.keys() - chosen.keys()), key=_version_of)
        for name in surplus:
            if name not in there and store.is_gone(name):  # a listing may be behind
                self._remove(name, kept)
        for name, content in chosen.items():
            with self._noting(name):
                self._fetch(store, name, content, kept)
                self._make_room(surplus, kept)
        return kept

    def _make_room(self, surplus: Iterable[str], kept: dict[str, _Content]) -> None:
        """Remove files of these, the lowest versions first, as far as the bound needs it."""
        for name in surplus:
            if sum(content.size or 0 for content in kept.values()) <= self._max_bytes:
                return
            if name in kept:
                self._remove(name, kept)

    def _is_wanted(self, name: str) -> bool:
        return not self._models or _model_of(name) in self._models

    def _choose(
        self, store: _Files, there: Mapping[str, _Content | None], kept: Mapping[str, _Content]
    ) -> dict[str, _Content]:
        """The files to have, the most wanted first; one that is not to be had as it is, as it was."""
        chosen: dict[str, _Content] = {}
        left = self._max_bytes
        for rank, name in _by_rank(there):
            if rank >= self._versions and name not in kept:
                continue
            contents = [kept[name]] if name in kept else []
            with self._noting(name):
                contents.insert(0, self._acceptable(store, name, there[name]))
            fitting = [content for content in contents if (content.size or 0) <= left]
            if contents and contents[0] not in fitting and rank < self._versions:
                size = contents[0].size
                self._note(
                    name,
                    f"{self.shown}/{name}, {size} bytes, is too much: --model-cache-bytes is {self._max_bytes}",
                )
            if fitting:
                chosen[name] = fitting[0]
                left -= fitting[0].size or 0
        return chosen

    def _acceptable(self, store: _Files, name: str, listed: _Content | None) -> _Content:
        content = listed or store.look(name)
        if (content.size or 0) > self._max_model_bytes:
            raise StoreError(
                f"{self.shown}/{name} has {content.size} bytes; --max-model-bytes is {self._max_model_bytes}"
            )
        return content

    def _fetch(self, store: _Files, name: str, listed: _Content, kept: dict[str, _Content]) -> None:
        """Have a file in this content, or in that which the store has meanwhile. Raises StoreError."""
        path = self.folder / name
        if listed.is_like(kept.get(name)) and _is_there(path, listed):
            return
        temporary = self.folder / f".{os.urandom(8).hex()}.part"
        try:
            content = self._read(store, name, temporary, kept)
            if content is None:
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            kept.pop(name, None)
            self._keep(kept)  # if this process ends here, the file is fetched again
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        kept[name] = content
        self._keep(kept)
        _log.info("fetched %s/%s, %d bytes", self.shown, name, content.size)

    def _read(self, store: _Files, name: str, temporary: Path, kept: Mapping[str, _Content]) -> _Content | None:
        """Read a file that nobody replaces meanwhile; None: the folder has it. Raises StoreError."""
        content = store.look(name)  # a listing may be behind
        for _ in range(_TRIES):
            if content.is_like(kept.get(name)) and _is_there(self.folder / name, content):
                return None
            store.read(name, temporary, self._max_model_bytes if content.size is None else content.size)
            before, content = content, store.look(name)
            size = temporary.stat().st_size
            if content == before and content.size in (None, size):
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
                return _Content(content.tag, size)
        raise StoreError(f"{self.shown}/{name} changed, or came cut short, each time that it was read")

    def _remove(self, name: str, kept: dict[str, _Content]) -> None:
        path = self.folder / name
        path.unlink(missing_ok=True)
        for parent in [*path.parents][: name.count("/")]:
            with suppress(OSError):  # there is more in it
                parent.rmdir()
        del kept[name]
        self._keep(kept)
        _log.info("%s/%s is gone, or has to make room", self.shown, name)

    def _kept(self) -> dict[str, _Content]:
        """What was fetched; what cannot be understood is fetched again."""
        try:
            entries = json.loads((self.folder / _STATE).read_bytes())
            return {name: _Content(*content) for name, content in entries.items() if address_of(name)}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _keep(self, kept: Mapping[str, _Content]) -> None:
        temporary = self.folder / f"{_STATE}.part"
        temporary.write_text(json.dumps({name: astuple(content) for name, content in kept.items()}))
        temporary.replace(self.folder / _STATE)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process into the folder, and remove what one left that was killed. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.folder / _LOCK, "wb") as lock:
            with suppress(ImportError):  # of Windows, where one process alone serves
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self.folder.glob(_PARTS):
                left.unlink()
            yield

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if error.fault != "missing":  # a listing that is behind has it still
                self._note(name, str(error))
        except OSError as error:
            self._note(name, f"{self.shown}/{name} cannot be kept in {self.folder} ({error.strerror})")

    def _note(self, name: str, text: str) -> None:
        self._problems.setdefault(name, printable(text))


@dataclass(frozen=True, slots=True)
class _Content:
    """What tells one content of a file from another."""

    tag: str
    """Empty: the store says nothing, so any two contents may differ."""
    size: int | None

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
        tags = [info[key] for key in _TAGS if info.get(key)]
        # A listing may have numbers where others have datetimes.
        times = [getattr(info[key], "timestamp", lambda time=info[key]: time)() for key in _TIMES if info.get(key)]
        return cls(str(tags[0]).strip('"') if tags else " ".join(map(str, times)), info.get("size"))

    def is_like(self, other: _Content | None) -> bool:
        """Whether it is the same, as far as both say."""
        if other is None or not self.tag:
            return False
        return self.tag == other.tag and (None in (self.size, other.size) or self.size == other.size)


class _Files:
    """The files behind a URL, by their paths below it. What their library raises becomes StoreError."""

    def __init__(self, url: str, shown: str) -> None:
        self._shown = shown
        self._url = url
        self._paths: dict[str, str] = {}
        try:
            self._store = open_store(url)
        except ImportError as error:
            raise StoreError(f"{shown} needs fsspec ({error}): pip install 'bgan[s3]'") from error
        protocol = self._store.files.protocol
        self._protocols = {protocol} if isinstance(protocol, str) else {*protocol}

    def close(self) -> None:
        """Forget the client, which takes most of a second to make."""
        self._store.files.clear_instance_cache()

    def list(self) -> dict[str, _Content | None]:
        """The files of models; None: the listing does not tell contents."""
        how: dict[str, Any] = {} if self._protocols & _FLAT else {"maxdepth": _DEPTH, "on_error": "raise"}
        with self._explained():
            found = self._store.files.find(self._store.root, detail=True, **how)
            if not found:
                self._store.files.ls(self._store.root)  # says why
        self._paths = {self._name(path): path for path in found if path.startswith(f"{self._store.root}/")}
        contents = {name: _Content.of(found[path]) for name, path in self._paths.items() if address_of(name)}
        return {name: content if content.tag else None for name, content in contents.items()}

    def look(self, name: str) -> _Content:
        """What a file is now."""
        with self._explained(name):
            return _Content.of(self._info(name))

    def is_gone(self, name: str) -> bool:
        """Whether a file is surely no longer there."""
        try:
            self._info(name)
        except FileNotFoundError:
            return True
        except Exception:
            return False
        return False

    def read(self, name: str, path: Path, most: int) -> None:
        """Write a file's content to a path."""
        from fsspec.callbacks import Callback

        shown = f"{self._shown}/{name}"

        class Bound(Callback):  # type: ignore[misc]
            def relative_update(self, inc: int = 1) -> None:
                super().relative_update(inc)
                if self.value > most:
                    raise StoreError(f"{shown} goes on after {most} bytes")

        try:
            with self._explained(name):
                self._store.files.get_file(self._path(name), str(path), callback=Bound())
        except StoreError as error:
            if error.fault != "full":
                raise
            text = f"{shown} has no room in {path.parent}; make some, or name another folder {_NAMED_BY}"
            raise StoreError(text, fault="full") from error

    def _info(self, name: str) -> Mapping[str, Any]:
        self._store.files.invalidate_cache()
        info: Mapping[str, Any] = self._store.files.info(self._path(name))
        return info

    def _name(self, path: str) -> str:
        name = path[len(self._store.root) + 1 :]
        return unquote(name) if self._protocols & _WEB else name

    def _path(self, name: str) -> str:
        return self._paths.get(name, self._store.path(quote(name) if self._protocols & _WEB else name))

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        """`name`: of the file that is asked for; "": the store."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # of whatever library the store has
            found = store_error(f"{self._shown}/{name}".rstrip("/"), error)
            raise StoreError(printable(redacted(str(found), self._url)), fault=found.fault) from error


def _model_of(name: str) -> str:
    """What the file of a model, or the folder of its versions, is called."""
    return name.partition("/")[0].removesuffix(".onnx")


def _version_of(name: str) -> int:
    return (address_of(name) or (None, 0))[1]


def _by_rank(names: Iterable[str]) -> list[tuple[int, str]]:
    """Files by how many higher versions of the same model there are, and then by name."""
    groups: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in names:
        model, version = address_of(name) or (None, 0)
        groups[model or f"/{name}"].append((version, name))
    ranked = (enumerate(sorted(group, reverse=True)) for group in groups.values())
    return sorted((rank, name) for group in ranked for rank, (_, name) in group)


def _is_there(path: Path, content: _Content) -> bool:
    try:
        return content.size in (None, path.stat().st_size)
    except OSError:
        return False


def own_cache() -> Path:
    """The user's folder of models. Raises StoreError where there is no home folder."""
    if own := os.environ.get("BGAN_CACHE_DIR"):
        return Path(own) / "models"
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bgan" / "models"
    except RuntimeError as error:  # neither HOME nor an entry of the user database
        raise StoreError(f"there is no home folder to keep models in; name a folder {_NAMED_BY}") from error
