"""The hosts of a simulation: a server each, which a service manager starts again when it ends."""

import asyncio
import hashlib
import signal
from datetime import UTC, datetime

from bgan.serving.server.server import serve
from bgan.serving.server.supervisor import supervise

from .disk import ROOT
from .reference import OLD
from .world import settings

GRACE_SECONDS = 4.0
STALLED_SECONDS = 8.0
IMAGES_PER_MINUTE = 300
MAX_STREAMS = 4
_RESTART_SECONDS = 1.0
_EXPIRY_SECONDS = 18.0  # after the start
NAMES = ("alice", "bob", "carol", "dave", "mallory", "probe")
"""Who has a token: bob's has a quota, carol's may be revoked, dave's expires, mallory's is a hostile caller's."""


def secret(name):
    """The token of a caller."""
    return f"bgan_{name}_{'0' * 64}"


def token_file(expiry, *, without=()):
    """The content of a file of tokens."""
    more = {"bob": f"images_per_minute = {IMAGES_PER_MINUTE}\n", "dave": f"expires = {expiry.isoformat()}\n"}
    tables = (
        f'[{name}]\nsha256 = "{hashlib.sha256(secret(name).encode()).hexdigest()}"\nmodels = ["*"]\n'
        + more.get(name, "")
        for name in NAMES
        if name not in without
    )
    return "\n".join(tables).encode()


class Host:
    """A server or a pool of workers on a port, and its disk."""

    def __init__(self, world, port, workers):
        self.world, self.port, self.workers = world, port, workers
        self.folder = f"{ROOT}/{port}"
        self.model = f"{self.folder}/models/digits/1.onnx"
        self.tokens = f"{self.folder}/tokens.toml"
        self.expiry = datetime.fromtimestamp(world.wall_time() + _EXPIRY_SECONDS, UTC)
        self.process = None
        self.highest = OLD
        """The content of the highest version."""
        self.revoked_at = None
        self.is_closing = False
        self._settings = settings(
            port,
            self.folder,
            workers=workers or 1,
            threads=2,
            model_poll_seconds=1.0,
            model_keep_seconds=15.0,
            stalled_write_seconds=STALLED_SECONDS,
            grace_seconds=GRACE_SECONDS,
            max_streams=MAX_STREAMS,
            max_streams_per_caller=3,
            max_queued_calls=8,
            max_batch_size=64,
            reflection=False,
        )
        world.disk.write(self.model, OLD)
        world.disk.write(self.tokens, token_file(self.expiry))

    async def keep_up(self):
        """What a service manager does."""
        main = supervise if self.workers else serve
        while not self.is_closing:
            self.process = self.world.process(str(self.port), lambda: main(self._settings))
            ended = asyncio.Event()
            self.process.on_end.append(ended.set)
            await ended.wait()
            if (failure := self.process.failure) is not None:
                self.world.blame(f"{self.port} ended with {type(failure).__name__}: {failure}")
            await asyncio.sleep(_RESTART_SECONDS)

    def serving_processes(self):
        """Those that listen."""
        return list(dict.fromkeys(each.process for each in self.world.network.listeners(self.port)))

    def some_server(self, draw):
        """One of the processes that answer calls, or the main one."""
        found = self.serving_processes() or [self.process]
        return found[int(draw * len(found))]

    async def stop(self):
        """SIGTERM; returns the seconds that it took, None: it does not end."""
        self.is_closing = True
        started = self.world.now
        self.process.send_signal(signal.SIGTERM)
        while self.process.returncode is None:
            if self.world.now > started + 60:
                return None
            await asyncio.sleep(0.05)
        return self.world.now - started
