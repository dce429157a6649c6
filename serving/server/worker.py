"""One of several processes that serve on one port, started and commanded by `supervisor`."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from contextlib import suppress

from ..config.settings import ServerSettings
from ..errors import ServingError
from ..models.registry import Registry
from ..telemetry.start import start_metrics
from .server import Server, run, seconds_to_stop
from .stop import Stop

BEAT_SECONDS = 1.0
"""How often a worker says that it lives."""
_SECONDS_BEYOND_GRACE = 0.45  # so that it ends by itself before its supervisor ends it
_MAX_TEXT = 500  # so that a report is no longer than what a pipe takes as a whole (PIPE_BUF)


class _Reports:
    """What the supervisor is told: all of it each time, so that one that it does not take is not missed."""

    def __init__(self) -> None:
        """Take standard output, which from now on is standard error to everyone else."""
        self._file = os.dup(1)
        os.dup2(2, 1)
        os.set_blocking(self._file, False)
        self._models = ""
        self._error = ""

    def tell_models(self, registry: Registry) -> None:
        """These are the models from now on; the digest of their revisions stands for them."""
        names = "\n".join(str(engine) for engine in registry.engines)
        self._models = hashlib.sha256(names.encode()).hexdigest()
        self.tell()

    def tell_error(self, error: ServingError) -> None:
        """The worker ends, because of this."""
        self._error = str(error)[:_MAX_TEXT]
        self.tell()

    def tell(self) -> None:
        """Tell it as it is now, unless the supervisor stands still or is gone."""
        report = json.dumps({"models": self._models, "error": self._error})
        with suppress(OSError):
            os.write(self._file, f"{report}\n".encode())

    async def beat(self) -> None:
        """Tell it again and again, for as long as the event loop turns."""
        while True:
            self.tell()
            await asyncio.sleep(BEAT_SECONDS)

    def close(self) -> None:
        """Give standard output back: the log waits for everyone who could still write to standard error."""
        os.dup2(self._file, 1)


async def work(settings: ServerSettings) -> None:
    """Load the models and follow them, and take commands from standard input until it ends, or until SIGTERM.

    Standard output gets reports. Standard input ends with the supervisor, so no worker outlives it. Raises
    ServingError, which the supervisor was told.
    """
    for number in (
        signal.SIGINT,
        signal.SIGHUP,
    ):  # of a terminal: the supervisor has them too, and ends the workers
        signal.signal(number, signal.SIG_IGN)
    reports = _Reports()
    try:
        with Stop(signal.SIGTERM, seconds=seconds_to_stop(settings) + _SECONDS_BEYOND_GRACE) as stop:
            async with Server(settings, start_metrics(settings, is_worker=True), stop) as server:
                for part in (reports.beat(), _obey(server, stop), _live(server, reports)):
                    server.watch(part)
                await server.wait()
    except ServingError as error:
        reports.tell_error(error)
        raise
    finally:
        reports.close()


async def _live(server: Server, reports: _Reports) -> None:
    reports.tell_models(await server.load())
    await server.follow(reports.tell_models)


async def _obey(server: Server, stop: Stop) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line == LISTEN:
            await server.listen()
        elif line == SET_SERVING:
            server.set_serving()
    stop.begin()


LISTEN, SET_SERVING = b"listen\n", b"set serving\n"
"""The commands."""


def main() -> None:
    """Entry point; arguments: the worker's number and its settings as JSON."""
    number, settings = sys.argv[1:]
    checked = ServerSettings.of_argument(settings)
    try:
        run(work(checked), log_format=checked.log_format, worker=int(number))
    except ServingError:
        sys.exit(1)


if __name__ == "__main__":
    main()
