"""One of several processes that serve on one port, started and commanded by `supervisor`."""

import asyncio
import json
import logging
import signal
import sys
from typing import Any

from ..config.settings import ServerSettings
from ..errors import ServingError
from ..models.registry import Registry
from ..telemetry.start import start_metrics
from .server import Server, run, stop_signal

_log = logging.getLogger(__name__)


async def work(settings: ServerSettings) -> None:
    """Load the models and follow them, and take commands from standard input until it ends, or until SIGTERM.

    Standard output gets the models, at first and after each change. Standard input ends with the supervisor, so no
    worker outlives it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor as well, which ends the workers
    stop = stop_signal(signal.SIGTERM)
    try:
        server = Server(settings, start_metrics(settings, is_worker=True))
    except ServingError as error:
        _tell({"error": str(error)})
        return
    async with server:
        tasks = [asyncio.create_task(_obey(server, stop))]
        try:
            _tell_models(await server.load())
            tasks.append(asyncio.create_task(server.follow(_tell_models)))
            await stop.wait()
        except ServingError as error:
            _tell({"error": str(error)})
        finally:
            for task in tasks:
                task.cancel()


def _tell_models(registry: Registry) -> None:
    _tell({"models": [str(engine) for engine in registry.engines]})


def _tell(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - the supervisor reads it


async def _obey(server: Server, stop: asyncio.Event) -> None:
    commands = {b"listen\n": server.listen, b"set serving\n": server.set_serving}
    try:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            await commands[line]()
    except ServingError as error:
        _log.error("%s", error)
    finally:
        stop.set()


def main() -> None:
    """Entry point; arguments: the worker's number and its settings as JSON."""
    number, settings = sys.argv[1:]
    checked = ServerSettings.of_argument(settings)
    run(work(checked), log_format=checked.log_format, worker=int(number))


if __name__ == "__main__":
    main()
