"""Which process uses gRPC: what was forked off it can use gRPC in part, or not at all."""

import os

AFTER_FORK = (
    "gRPC was used before this process was forked off it, and may not work here; start processes by spawn or "
    "forkserver, or fork before the first call"
)


class _Use:
    """Of gRPC, by this process or those that it was forked off."""

    pid: int | None = None
    by_asyncio = False


def is_forked() -> bool:
    """Whether a process that used gRPC before was forked into this one."""
    return _Use.pid not in (None, os.getpid())


def note_use(*, by_asyncio: bool) -> None:
    """Say that gRPC is used here. Raises RuntimeError where it would hang, or end the process.

    gRPC's blocking interface works in a forked process unless it was told otherwise, its asyncio one does not.
    """
    if _Use.pid is None:
        _Use.pid = os.getpid()
    if is_forked() and (by_asyncio or _Use.by_asyncio or not _are_forks_supported()):
        raise RuntimeError(AFTER_FORK)
    _Use.by_asyncio |= by_asyncio


def _are_forks_supported() -> bool:
    return os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "1").lower() not in {"0", "f", "false", "n", "no"}
