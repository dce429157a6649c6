"""Calls that are wrong below gRPC, by the rules of `frame_rules`, and whether the server lives on.

One field is wrong in one call, and its rule says what must follow; or several are, on one connection, and then
only that everyone else is answered. A seed draws the same again.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from grpc_health.v1 import health_pb2

from bgan.v1 import sampling_pb2

from .access import Access
from .frame_rules import COUNT, GOOD, RULES, SEED, TOKEN_RULES, Rule, Wrong, call_frames, fields_of
from .http2 import CALL, OPEN, PROBE, Blocks, Connection, message

LIVE_AGAIN_SECONDS = 10
_DISTURBING_SECONDS = 2  # a listener that is lost may never answer
_AT_ONCE = 16
_CONNECTIONS = 16  # they miss one of four listeners once in a hundred times
_TOGETHER = 0.2  # of the calls are wrong in several fields
_HEALTH = b"/grpc.health.v1.Health/Check"


@dataclass(frozen=True)
class Input:
    """A connection's calls; one by a rule, or several with their faults joined."""

    rule: Rule | None
    calls: tuple[Wrong, ...]

    @property
    def name(self) -> str:
        return "frames of several faults" if self.rule is None else f"frames {self.rule.part}: {self.rule.name}"


def rules_of(access: Access) -> tuple[Rule, ...]:
    """Those that hold for a server that wants a token, or none."""
    return RULES if access.token is None else (*RULES, *TOKEN_RULES)


def inputs(rules: Sequence[Rule], seed: int) -> Iterator[Input]:
    """Endless: every rule in turn, and calls of several faults between them."""
    rng = random.Random(seed)
    joinable = [rule for rule in rules if not rule.disturbs]
    while True:
        for rule in rng.sample(rules, len(rules)):
            yield Input(rule, (rule.draw(rng),))
            if rng.random() < _TOGETHER:
                yield Input(None, tuple(_joined(rng, joinable) for _ in range(rng.randint(1, 4))))


def _joined(rng: random.Random, rules: Sequence[Rule]) -> Wrong:
    """A call of any rule whose fields were edited by others."""
    last = rng.choice(rules).draw(rng)
    edits = [edit for edit in (rule.edit for rule in rng.choices(rules, k=rng.randint(1, 4))) if edit]
    seed = rng.getrandbits(64)

    def call(connection, fields):
        ours = random.Random(seed)
        for edit in edits:
            fields = edit(ours, fields)
        return last(connection, fields)

    return call


class Frames:
    """Sends inputs to a server, and says what must not have been."""

    def __init__(self, access: Access, wait: Callable[[], None] = lambda: None) -> None:
        """The server must live: its first answer, over gRPC, is what all others must be.

        wait: what is done before each connection.
        """
        self._access = access
        self._wait = wait
        self._fields = fields_of(access.target, access.token)
        with access.client() as client:
            (batch,) = client.sample_binary_images(image_count=COUNT, seed=SEED)
        self.images = batch.packed_images.tobytes()

    def send(self, part: Sequence[Input]) -> tuple[Counter, list[str]]:
        """How calls ended, by "input: end", and what was wrong with that and with the server after them.

        Those that may take others with them come last, one by one.
        """
        together = [given for given in part if given.rule is None or not given.rule.disturbs]
        ends, breaches = self._send_all(together)
        for given in part:
            if given not in together:
                more_ends, more_breaches = self._send_all([given])
                ends, breaches = ends + more_ends, breaches + more_breaches
        return ends, breaches

    def _send_all(self, part):
        if not part:
            return Counter(), []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(self._send, part))
        ends = Counter(f"{given.name}: {end}" for given, (end, _) in zip(part, found, strict=True))
        breaches = [breach for _, breach in found if breach]
        names = ", ".join(sorted({given.name for given in part}))
        return ends, [*breaches, *(f"{problem} after {names}" for problem in self._wait_for_life())]

    def _wait_for_life(self) -> list[str]:
        """What is still wrong for everyone else after the time in which a server is to live again."""
        end = time.monotonic() + LIVE_AGAIN_SECONDS
        while (problems := self.not_live()) and time.monotonic() < end:
            time.sleep(0.1)
        return problems

    def bytes_of(self, given: Input) -> list[bytes]:
        """What is sent of an input on a new connection."""
        blocks = Blocks()
        return [call(blocks, self._fields) for call in given.calls]

    def not_live(self) -> list[str]:
        """What is wrong for everyone else: new connections get the right images, and health says SERVING."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            ends = Counter(pool.map(lambda _: self._look(), range(_CONNECTIONS)))
        return [
            f"{count} of {_CONNECTIONS} new connections: {end}" for end, count in ends.items() if end != "lives"
        ]

    def _send(self, given: Input) -> tuple[str, str]:
        """How it ended, and what must not be, "" if nothing."""
        self._wait()
        try:
            if given.rule is None:
                return self._send_several(given.calls), ""
            call, last = self._outcome(given)
        except (OSError, EOFError) as error:
            return "no connection", f"{given.name}: no connection ({error!r})"
        end = f"{call}{last and f', {last}'}"
        if call in given.rule.ends.split("|") and last in given.rule.closes.split("|"):
            return end, ""
        due = f"{given.rule.ends}{given.rule.closes and f', {given.rule.closes}'}"
        return end, f"{given.name}: {end} instead of {due} ({given.rule.source})"

    def _outcome(self, given: Input) -> tuple[str, str]:
        """The end of a call, and of its connection if the good call after it was not answered."""
        awaits = OPEN not in given.rule.ends.split("|")
        with Connection(self._access) as connection:
            with suppress(OSError):  # what came before may be read all the same
                connection.send(given.calls[0](connection, self._fields))
                connection.send(call_frames(connection.plain_block(self._fields), GOOD, PROBE))
            if given.rule.disturbs:
                ended, _ = connection.ends({CALL}, seconds=_DISTURBING_SECONDS)
                return self._end(ended, CALL), ""
            ended, last = connection.ends({PROBE, CALL} if awaits else {PROBE})
            return self._end(ended, CALL), "" if self._end(ended, PROBE) == "OK" else last or "no next call"

    def _send_several(self, calls: Sequence[Wrong]) -> str:
        with Connection(self._access) as connection, suppress(OSError):
            for call in calls:
                connection.send(call(connection, self._fields))
        return "sent"

    def _end(self, ended, stream) -> str:
        end, body = ended.get(stream, (OPEN, b""))
        if end != "OK":
            return end
        response = sampling_pb2.SampleBinaryImagesResponse.FromString(body[5:])
        return "OK" if response.packed_images == self.images else "wrong images"

    def _look(self) -> str:
        fields = [(name, _HEALTH if name == b":path" else value) for name, value in self._fields]
        try:
            with Connection(self._access) as connection:
                connection.send(call_frames(connection.block(self._fields), GOOD))
                connection.send(call_frames(connection.block(fields), message(b""), PROBE))
                ended, last = connection.ends({CALL, PROBE})
        except (OSError, EOFError) as error:
            return repr(error)
        end, body = ended.get(PROBE, (OPEN, b""))
        images, health = self._end(ended, CALL), health_pb2.HealthCheckResponse.FromString(body[5:]).status
        if images == "OK" and health == health_pb2.HealthCheckResponse.SERVING:
            return "lives"
        return f"images {images}, health {end} {health}, connection {last or 'open'}"
