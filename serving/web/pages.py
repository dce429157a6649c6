"""The files of the gallery, which anyone may read: they are the same for all servers."""

import asyncio
from collections.abc import Mapping
from importlib.metadata import version
from mimetypes import guess_type
from pathlib import Path
from typing import BinaryIO

from grpc import StatusCode

from ..errors import foreign
from ..rpc.guard import status_of
from .http_call import HttpCall, Reply

_AT_ONCE = 64 * 1024
_POLICY = "; ".join(
    [
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:",
        "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ]
)


class Pages:
    """Answers the paths of some folders' files: no others can be had, whatever a path says."""

    def __init__(self, folders: Mapping[str, Path], stalled_seconds: float) -> None:
        """`folders`: by the path at which each is shown; stalled_seconds: how long a reader may take nothing."""
        found = {
            f"{at}/{path.relative_to(folder).as_posix()}": path
            for at, folder in folders.items()
            for path in folder.rglob("*")
            if path.is_file()
        }
        self._files = {path.removesuffix("index.html"): file for path, file in found.items()}
        self._stalled_seconds = stalled_seconds

    async def show(self, _: HttpCall, call: HttpCall) -> bytes:
        """One file, in parts. Raises StalledReaderError."""
        if (path := self._files.get(call.address)) is None:
            text = f"there is nothing at {foreign(call.address)}; /openapi.json says what there is"
            missing = StatusCode.NOT_FOUND, text
            await call.abort(*missing, (status_of(*missing, "PATH_NOT_FOUND"),))
        assert path is not None  # abort raises
        call.reply = _described(path)
        if call.has_tag(call.reply.headers["etag"]):
            call.reply.status, call.reply.length = 304, None
            return b""
        if call.method == "HEAD":
            return b""
        with path.open("rb") as file:
            return await send_file(file, call, self._stalled_seconds)


async def send_file(file: BinaryIO, call: HttpCall, stalled_seconds: float) -> bytes:
    """Send a file but for its last part, which is returned. Raises StalledReaderError."""
    while len(part := await asyncio.to_thread(file.read, _AT_ONCE)) == _AT_ONCE:
        await call.write_in_time(part, stalled_seconds)
    return part


def _described(path: Path) -> Reply:
    about = path.stat()
    kind = guess_type(path.name)[0] or "application/octet-stream"
    headers = {
        "content-type": f"{kind}; charset=utf-8" if kind.startswith("text/") else kind,
        "content-security-policy": _POLICY,
        "cache-control": "no-cache",
        "etag": f'"{version("bgan")}-{about.st_mtime_ns:x}-{about.st_size:x}"',
    }
    return Reply(headers=headers, length=about.st_size)
