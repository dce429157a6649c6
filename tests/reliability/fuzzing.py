"""Sends a server bytes that are no messages, half messages and strange messages, and notes how it answers.

    python -m tests.reliability.fuzzing localhost:50051 --count 100000 --seed 1

Prints one line of JSON for each part of the inputs: how many there were, how calls ended by method and code, and
what must not have been. `--seconds` spreads them over that time; `--corpus` adds inputs of `coverage_fuzzing`.
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import grpc

from bgan.clients import SamplingClient

from .messages import Source, drawn, encoded, structured, valid_messages
from .wire import UNKNOWN_METHODS, Method, methods_of, send, send_garbage

Code = grpc.StatusCode
# A call is answered, or its request is at fault; bytes that are no message are an INVALID_ARGUMENT too.
CODES = {
    Code.OK,
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.FAILED_PRECONDITION,
    Code.RESOURCE_EXHAUSTED,
    Code.UNIMPLEMENTED,
}
_EXAMPLES = 60  # of structured messages a method
_AT_ONCE = 12
_CHANNELS = 3
_INPUTS_A_GARBAGE = 100
_SHOWN_BYTES = 200
_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]


@dataclass
class Tally:
    """What became of the inputs."""

    count: int = 0
    ends: Counter = field(default_factory=Counter)
    """Calls by "path CODE"."""
    breaches: list[str] = field(default_factory=list)
    """What must not be: a code that is none of CODES, with the method and the input."""

    def note(self, method: Method, messages: list[bytes], code: Code) -> None:
        self.count += 1
        self.ends[f"{method.path} {code.name}"] += 1
        if code not in CODES:
            shown = ", ".join(message[:_SHOWN_BYTES].hex() for message in messages)
            self.breaches.append(f"{method.path} ended with {code.name} at {shown}")

    def add(self, other: "Tally") -> None:
        self.count += other.count
        self.ends += other.ends
        self.breaches += other.breaches

    def codes(self) -> Counter:
        """Calls by code."""
        found = Counter()
        for end, count in self.ends.items():
            found[end.rpartition(" ")[2]] += count
        return found


def inputs(target: str, seed: int, corpus: Path | None = None):
    """Endless (method, messages), the methods in turn; the same for the same seed and server."""
    rng = random.Random(seed)
    with SamplingClient(target) as client:
        models = client.list_models()
    words = [text for model in models for text in (model.name, model.revision)]
    methods, sources = methods_of(target), []
    found = _corpus(corpus, len(methods))
    for number, method in enumerate(methods):
        valid = [
            encoded(method.request, fields)
            for model in models[:2]
            for fields in valid_messages(method.path, model.name, model.latent_size)
        ]
        examples = drawn(structured(method.request, words), _EXAMPLES, seed)
        strange = [example.SerializeToString() for example in examples] + found[number]
        sources.append((method, iter(Source(rng, valid, strange))))
    nothing = iter(Source(rng, [], []))
    for method, source in cycle([*sources, (None, nothing)]):
        chosen = method or rng.choice(UNKNOWN_METHODS)
        yield chosen, [next(source) for _ in range(rng.randint(1, 3) if chosen.takes_stream else 1)]


def _corpus(folder: Path | None, method_count: int) -> list[list[bytes]]:
    """What the coverage fuzzer kept, by the number of the method: its inputs begin with that."""
    found: list[list[bytes]] = [[] for _ in range(method_count)]
    for path in sorted(folder.iterdir()) if folder else ():
        content = path.read_bytes()
        if content:
            found[content[0] % method_count].append(content[1:])
    return found


async def fuzz(target: str, source, *, count: int) -> Tally:
    """Send the next `count` inputs, several at once."""
    tally = Tally()
    channels = [grpc.aio.insecure_channel(target, options=_OPTIONS) for _ in range(_CHANNELS)]

    async def work(channel):
        while tally.count + busy < count:
            await call(channel)

    async def call(channel):
        nonlocal busy
        busy += 1
        method, messages = next(source)
        code = await send(channel, method, messages)
        busy -= 1
        tally.note(method, messages, code)

    busy = 0
    async with asyncio.TaskGroup() as tasks:
        for _, channel in zip(range(_AT_ONCE), cycle(channels), strict=False):
            tasks.create_task(work(channel))
    for channel in channels:
        await channel.close()
    return tally


def garbage(target: str, seed: int, count: int) -> None:
    """Connections that speak no HTTP/2, or bad HTTP/2."""
    rng = random.Random(seed)
    for _ in range(count):
        send_garbage(int(target.rpartition(":")[2]), rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="host:port")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, help="spread the inputs over that time")
    parser.add_argument("--part", type=int, default=2_000, help="inputs between two lines")
    parser.add_argument("--corpus", type=Path)
    options = parser.parse_args()
    source, started, sent = inputs(options.target, options.seed, options.corpus), time.monotonic(), 0
    while sent < options.count:
        tally = asyncio.run(fuzz(options.target, source, count=min(options.part, options.count - sent)))
        garbage(options.target, options.seed + sent, tally.count // _INPUTS_A_GARBAGE)
        sent += tally.count
        print(json.dumps(vars(tally)), flush=True)
        ahead = started + options.seconds * sent / options.count - time.monotonic()
        time.sleep(max(0.0, ahead))


if __name__ == "__main__":
    main()
