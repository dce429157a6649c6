"""Fuzzes a server guided by which of its code an input reaches: atheris mutates, a real server answers.

    python -m tests.reliability.coverage_fuzzing --models models --corpus corpus --seconds 60 --seed 1

The server runs in this process, since atheris sees no other, and is called over a connection. The first byte of
an input says which method gets the rest. Ends with exit code 77, and says the input, at a code that must not be,
or when the server logs an error. What reaches new code is left in the corpus.
"""

import argparse
import asyncio
import logging
import sys
import threading
from pathlib import Path

import atheris
import grpc

with atheris.instrument_imports(include=["bgan.serving"]):
    from bgan.serving.config.settings import ServerSettings
    from bgan.serving.server.ports import reserved_port
    from bgan.serving.server.server import Server
    from bgan.serving.server.stop import Stop
    from bgan.serving.telemetry.metrics import NO_METRICS

from .access import Access
from .fuzzing import wrong_end
from .message_rules import facts_of
from .messages import encoded, valid_messages
from .wire import ENOUGH_ANSWERS, Method, methods_of

_SECONDS = 60
_LONGEST = 4_096
_ERRORS: list[str] = []


class _Errors(logging.Handler):
    def emit(self, record):
        _ERRORS.append(self.format(record))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger().addHandler(_Errors(logging.ERROR))
    access = Access(_serve(options.models))
    channel, methods, facts = access.channel(), methods_of(access), facts_of(access)
    _plant(options.corpus, methods, facts.served[0].model)

    def test_one_input(data: bytes) -> None:
        if not data:
            return
        method = methods[data[0] % len(methods)]
        code = _send(channel, method, data[1:])
        if problem := wrong_end(method, [data[1:]], code, facts):
            raise RuntimeError(problem)
        if _ERRORS:
            raise RuntimeError(f"{method.path}: the server logged {_ERRORS[0]}")

    limits = (f"-max_total_time={options.seconds}", f"-seed={options.seed}", f"-max_len={_LONGEST}")
    artifacts = f"-artifact_prefix={options.corpus.parent}/"
    atheris.Setup([sys.argv[0], str(options.corpus), *limits, artifacts], test_one_input)
    atheris.Fuzz()


def _serve(models: Path):
    """A server in a thread of its own, until this process ends: where it listens."""
    settings = ServerSettings(models=models, port=0, max_image_count=10_000, max_batch_size=200)
    ready = threading.Event()
    ports = []

    async def run():
        with reserved_port(settings.host, 0) as port:
            stop = Stop(seconds=_SECONDS)  # which nothing begins
            async with Server(settings.model_copy(update={"port": port}), NO_METRICS, stop) as server:
                ports.append((await server.listen()).port)
                await server.load()
                server.set_serving()
                ready.set()
                await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
    ready.wait()
    return f"localhost:{ports[0]}"


def _plant(corpus: Path, methods: list[Method], model) -> None:
    """Begin with valid messages."""
    for number, method in enumerate(methods):
        for place, fields in enumerate(valid_messages(method.path, model)):
            (corpus / f"valid-{number}-{place}").write_bytes(bytes([number]) + encoded(method.request, fields))


def _send(channel, method, message):
    """The code of a call, OK where it goes on answering; as `wire.send`, but it blocks."""
    call = getattr(channel, method.kind)(method.path)
    try:
        if method.answers_stream:
            answers = call(iter([message]) if method.takes_stream else message, timeout=_SECONDS)
            for place, _ in enumerate(answers, 1):
                if place == ENOUGH_ANSWERS or method.path.endswith("/Watch"):
                    break
            answers.cancel()
        else:
            call(message, timeout=_SECONDS)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


if __name__ == "__main__":
    main()
