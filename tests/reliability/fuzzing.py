"""Sends a server bytes that are no messages, half messages and strange messages, and notes how it answers.

    python -m tests.reliability.fuzzing localhost:50051 --count 100000 --seed 1

Between them come calls that are wrong below gRPC (`frames`), and connections that speak no HTTP/2. Prints one
line of JSON for each part of the inputs: how many there were, how calls ended by method and code, and what must
not have been. `--seconds` spreads them over that time; `--corpus` adds inputs of `coverage_fuzzing`. The variable
BGAN_TOKEN has the token. While the file `--rest` is there, nothing is begun.
"""

import argparse
import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import grpc

from . import frames
from .access import Access
from .message_rules import Facts, expected, facts_of
from .messages import Source, drawn, encoded, structured, valid_messages
from .wire import UNKNOWN_METHODS, Method, methods_of, send, send_garbage

Code = grpc.StatusCode
ANY = {Code.OK, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT}
"""How a call may end whose model changes meanwhile."""
_EXAMPLES = 60  # of structured messages a method
_AT_ONCE = 12
_CHANNELS = 3
_INPUTS_A_GARBAGE = 100
_INPUTS_A_FRAME = 10
_SHOWN_BYTES = 200
_REST_SECONDS = 0.05  # between two looks whether it goes on
_OPTIONS = [("grpc.max_receive_message_length", -1)]


@dataclass
class Tally:
    """What became of the inputs."""

    count: int = 0
    ends: Counter = field(default_factory=Counter)
    """Calls by "path CODE"."""
    breaches: list[str] = field(default_factory=list)
    """What must not be: another end than the rules say, with the input."""

    def note(self, method: Method, messages: list[bytes], code: grpc.StatusCode, facts: Facts) -> None:
        self.count += 1
        self.ends[f"{method.path} {code.name}"] += 1
        if problem := wrong_end(method, messages, code, facts):
            self.breaches.append(problem)

    def add(self, other: "Tally") -> None:
        self.count += other.count
        self.ends += other.ends
        self.breaches += other.breaches

    def codes(self) -> Counter:
        """Calls that gRPC made, by code."""
        found = Counter()
        for end, count in self.ends.items():
            if end.startswith("frames "):
                continue
            found[end.rpartition(" ")[2]] += count
        return found


def wrong_end(method: Method, messages: list[bytes], code: grpc.StatusCode, facts: Facts) -> str:
    """What is wrong with how a call ended; "" if nothing."""
    due = expected(method, messages, facts)
    if code is due or (due is None and code in ANY):
        return ""
    shown = ", ".join(message[:_SHOWN_BYTES].hex() for message in messages)
    return f"{method.path} ended with {code.name} instead of {due and due.name} at {shown}"


def inputs(access: Access, facts: Facts, seed: int, corpus: Path | None = None):
    """Endless (method, messages), the methods in turn; the same for the same seed and server."""
    rng = random.Random(seed)
    words = [text for each in facts.served for text in (each.model.name, each.revision)]
    methods, sources = methods_of(access), []
    found = _corpus(corpus, len(methods))
    for number, method in enumerate(methods):
        valid = [
            encoded(method.request, fields)
            for each in facts.served
            for fields in valid_messages(method.path, each.model)
        ]
        examples = drawn(structured(method.request, words), _EXAMPLES, seed)
        strange = [example.SerializeToString() for example in examples] + found[number]
        sources.append((method, iter(Source(rng, valid, strange, method.request, words))))
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


async def fuzz(access: Access, facts: Facts, source, *, count: int, rest: Path | None = None) -> Tally:
    """Send the next `count` inputs, several at once; none while there is a file `rest`."""
    tally = Tally()
    channels = [access.channel(grpc.aio, _OPTIONS) for _ in range(_CHANNELS)]

    async def work(channel):
        while tally.count + busy < count:
            if rest and rest.exists():
                await asyncio.sleep(_REST_SECONDS)
            else:
                await call(channel)

    async def call(channel):
        nonlocal busy
        busy += 1
        method, messages = next(source)
        code = await send(channel, method, messages, access.metadata)
        busy -= 1
        tally.note(method, messages, code, facts)

    busy = 0
    async with asyncio.TaskGroup() as tasks:
        for _, channel in zip(range(_AT_ONCE), cycle(channels), strict=False):
            tasks.create_task(work(channel))
    for channel in channels:
        await channel.close()
    return tally


def garbage(access: Access, seed: int, count: int, wait: Callable[[], None] = lambda: None) -> None:
    """Connections that speak no HTTP/2, or bad HTTP/2; `wait` before each."""
    rng = random.Random(seed)
    for _ in range(count):
        wait()
        send_garbage(access, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", help="host:port")
    parser.add_argument("--ca", type=Path, help="the authority of the server's certificate; none: plaintext")
    parser.add_argument("--good-for", nargs="*", default=["*"], help="names of models that the token is good for")
    parser.add_argument("--moving", nargs="*", default=[], help="models that change meanwhile")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=0, help="spread the inputs over that time, and send no more after it"
    )
    parser.add_argument("--part", type=int, default=2_000, help="inputs between two lines")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--rest", type=Path, help="a file: while it is there, nothing is begun")
    asyncio.run(_send_all(parser.parse_args()))


async def _send_all(options: argparse.Namespace) -> None:
    """All parts in one event loop: gRPC polls for the process's first one, and complains once that is closed."""
    access = Access(options.target, os.environ.get("BGAN_TOKEN"), options.ca)
    facts = facts_of(access, patterns=tuple(options.good_for), moving=frozenset(options.moving))

    def wait():
        while options.rest and options.rest.exists():
            time.sleep(_REST_SECONDS)

    source, below = inputs(access, facts, options.seed, options.corpus), frames.Frames(access, wait)
    wrong_frames = frames.inputs(frames.rules_of(access), options.seed)
    started, sent = time.monotonic(), 0
    end = started + (1.1 * options.seconds or float("inf"))
    while sent < options.count and time.monotonic() < end:
        part_size = min(options.part, options.count - sent)
        tally = await fuzz(access, facts, source, count=part_size, rest=options.rest)
        sent += tally.count
        await asyncio.to_thread(garbage, access, options.seed + sent, tally.count // _INPUTS_A_GARBAGE, wait)
        part = list(islice(wrong_frames, tally.count // _INPUTS_A_FRAME))
        ends, breaches = await asyncio.to_thread(below.send, part)
        tally.add(Tally(len(part), ends, breaches))
        print(json.dumps(vars(tally)), flush=True)
        ahead = started + options.seconds * sent / options.count - time.monotonic()
        await asyncio.sleep(max(0.0, ahead))


if __name__ == "__main__":
    main()
