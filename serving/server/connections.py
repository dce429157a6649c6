"""The connections of a process: how many there may be, of one address and in all, and which make room."""

import asyncio
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache

from ..config.settings import ServerSettings
from ..rpc.admission import Admission
from ..rpc.peers import address_of, peer_name

FILES_IN_RESERVE = 256
"""Files of a process that are left for models, tokens, certificates, logs and connections that are about to go."""
SLACK = 1.5
"""How many times the bound gRPC lets in: connections are spread over its listeners unevenly."""
_LOOK_SECONDS = 0.25
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_FILES = "/proc/self/fd"
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Connection:
    """One that was accepted, of gRPC or of HTTP."""

    descriptor: int
    peer: str
    """The other side, as gRPC writes it."""
    address: str
    """What `address_of` says of it."""
    used: float
    """When it was opened or last had a stream or an inference, on the monotonic clock."""
    is_in_use: bool = False
    """Whether it has one now."""


@cache
def raise_file_limit() -> int:
    """Let this process have as many open files as it may have, once; returns how many."""
    if sys.platform == "win32":
        return 8192
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 2**31 - 1 if hard == resource.RLIM_INFINITY else hard


def connection_bound(settings: ServerSettings) -> int:
    """The most connections of one process: its share of the setting, and no more than its files allow.

    Between two looks each port may have `SLACK` times as many.
    """
    files, ports = raise_file_limit(), 1 if settings.http_port is None else 2
    allowed = int(max(files - FILES_IN_RESERVE, files // 4) / (SLACK * ports))
    return min(_share(settings.max_connections, settings), allowed)


def _share(bound: int, settings: ServerSettings) -> int:
    return -(-bound // settings.workers)


class Connections:
    """Looks at the sockets that this process accepted on its ports, and shuts down those beyond the bounds.

    Where there are too many, those go first that have had no stream or inference for the longest time (health does
    not count); if all are in use, the newest. So nobody is kept out by connections that do nothing.
    Elsewhere than on Linux nothing is seen, and nothing shut down.
    """

    def __init__(self, settings: ServerSettings, admission: Admission, ports: Collection[int | None]) -> None:
        self._admission = admission
        self._ports = ports
        self._most = connection_bound(settings)
        self._most_per_address = _share(settings.max_connections_per_address, settings)
        self._known: dict[int, Connection | None] = {}  # by the socket's inode; None: another kind of socket

    async def watch(self) -> None:
        """Keep the bounds until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                self.look()
            except OSError as error:
                _log.warning("connections cannot be looked at: %s", error)
            except Exception:
                _log.exception("connections could not be looked at")

    def look(self) -> None:
        """Shut down what is beyond the bounds now, and the connections of those who do not read."""
        used, unread = self._admission.take_connections()
        if sys.platform != "linux":
            return
        now = time.monotonic()
        open_now = self._find(now)
        running = {call.peer for call in self._admission.running}
        for connection in open_now:
            connection.is_in_use = connection.peer in running
            if connection.is_in_use or connection.peer in used:
                connection.used = now
        left = [connection for connection in open_now if not (connection.peer in unread and _shut(connection))]
        excess = self._excess(left)
        for connection in excess:
            _shut(connection)
        if excess:
            _log.warning("closed %d connections beyond the bounds", len(excess))

    def _excess(self, connections: list[Connection]) -> set[Connection]:
        by_address: dict[str, list[Connection]] = {}
        for connection in connections:
            by_address.setdefault(connection.address, []).append(connection)
        excess = {each for group in by_address.values() for each in _beyond(group, self._most_per_address)}
        return excess.union(_beyond([each for each in connections if each not in excess], self._most))

    def _find(self, now: float) -> list[Connection]:
        """All connections that were accepted, the older first where they are new."""
        found: dict[int, Connection | None] = {}
        for name in os.listdir(_FILES):
            try:
                status = os.fstat(int(name))
            except OSError:  # closed meanwhile
                continue
            if stat.S_ISSOCK(status.st_mode):
                inode = status.st_ino
                known = self._known[inode] if inode in self._known else self._connection(int(name), now)
                found[inode] = known
        self._known = found
        return [each for each in found.values() if each is not None]

    def _connection(self, descriptor: int, now: float) -> Connection | None:
        try:
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                if copy.family not in _FAMILIES or copy.getsockname()[1] not in self._ports:
                    return None
                host, port = copy.getpeername()[:2]
        except OSError:  # it listens, or was closed meanwhile
            return None
        peer = peer_name(host, port)
        return Connection(descriptor, peer, address_of(peer), used=now)


def _beyond(connections: list[Connection], most: int) -> Iterable[Connection]:
    """Which to close so that at most `most` are left."""
    idle = sorted((each for each in connections if not each.is_in_use), key=lambda each: each.used)
    busy = [each for each in connections if each.is_in_use]
    return [*idle, *reversed(busy)][: max(0, len(connections) - most)]


def _shut(connection: Connection) -> bool:
    """Shut a connection down; who reads it sees its end and closes it. False: it is gone already."""
    try:
        with socket.socket(fileno=os.dup(connection.descriptor)) as copy:
            if copy.family not in _FAMILIES or peer_name(*copy.getpeername()[:2]) != connection.peer:
                return False
            copy.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True
