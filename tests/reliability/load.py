"""A mixed load in the background, whose every image is checked against the reference."""

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bgan.clients import RetryPolicy, SamplingClient
from tests.kit.clients import Blocking

from .reference import Reference

PATIENT = RetryPolicy(attempts=500, initial_backoff_seconds=0.02, max_backoff_seconds=0.3)
CALL_SECONDS = 120
"""A call that takes longer hangs."""
_PAUSE_SECONDS = 0.05


class Load:
    """Threads that stream and call in turn, within their context, and note what is wrong."""

    def __init__(self, reference: Reference, models: Sequence[str], seed: int) -> None:
        self.wrong: list[str] = []
        """What went wrong, a line each."""
        self.streams: Counter = Counter()
        """Streams read to their end, by kind."""
        self.images = 0
        """Images that were checked."""
        self._reference = reference
        self._models = models
        self._seed = seed
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._turns: list[threading.Lock] = []

    def add(self, kind: str, targets: Sequence[str], most: int, *, asynchronous: bool = False) -> None:
        """One more caller: streams of 1 to `most` images from these servers."""
        make = Blocking if asynchronous else SamplingClient
        rng = random.Random(f"{self._seed} {kind} {len(self._threads)}")
        turn = threading.Lock()  # held for each call
        thread = threading.Thread(target=self._run, args=(kind, make, list(targets), most, rng, turn))
        self._threads.append(thread)
        self._turns.append(turn)
        thread.start()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Waits until no call runs, and lets none begin within its context."""
        with ExitStack() as stack:
            for turn in self._turns:
                stack.enter_context(turn)
            yield

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self, kind, make, targets, most, rng, turn):
        while not self._done.is_set():
            try:
                with make(targets, retry=PATIENT, timeout_seconds=CALL_SECONDS) as client:
                    self._call(kind, client, rng, most, turn)
            except Exception as error:
                self.wrong.append(f"{kind}: {type(error).__name__}: {error}")
                self._done.wait(1)

    def _call(self, kind, client, rng, most, turn):
        for _ in range(rng.randint(1, 20)):
            if self._done.wait(_PAUSE_SECONDS):
                return
            count = rng.randint(1, most)
            with turn:
                self._reference.read(
                    client,
                    count=count,
                    first_index=self._reference.draw(rng, count),
                    model=rng.choice(self._models),
                    batch_size=rng.choice((None, None, 1 + count // 3, 17)),
                    include_probabilities=rng.random() < 0.2,
                    timeout_seconds=CALL_SECONDS,
                )
            with self._lock:
                self.streams[kind] += 1
                self.images += count
