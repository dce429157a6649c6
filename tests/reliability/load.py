"""A mixed load in the background, whose every image is checked against the reference."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bgan.clients import SamplingClient
from tests.kit.clients import Blocking

from .access import Access
from .reference import Reference

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
        self.images: Counter = Counter()
        """Images that were checked, by kind."""
        self._reference = reference
        self._models = models
        self._seed = seed
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._turns: list[threading.Lock] = []
        self._is_resting = threading.Event()

    def add(
        self,
        kind: str,
        servers: Sequence[Access],
        most: int,
        *,
        make: Callable[..., SamplingClient | Blocking] = SamplingClient,
    ) -> None:
        """One more caller with the client that `make` gives: streams of 1 to `most` images from these servers."""
        rng = random.Random(f"{self._seed} {kind} {len(self._threads)}")
        turn = threading.Lock()  # held as long as a client has connections
        thread = threading.Thread(target=self._run, args=(kind, make, servers, most, rng, turn))
        self._threads.append(thread)
        self._turns.append(turn)
        thread.start()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Waits until no call runs and no client is left, and lets none begin within its context."""
        self._is_resting.set()
        try:
            with ExitStack() as stack:
                for turn in self._turns:
                    stack.enter_context(turn)
                yield
        finally:
            self._is_resting.clear()

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self, kind, make, servers, most, rng, turn):
        targets, options = [each.target for each in servers], servers[0].client_options()
        while not self._done.is_set():
            if (
                self._is_resting.is_set()
            ):  # whoever waits for the turn would not get it from one that takes it again
                self._done.wait(_PAUSE_SECONDS)
                continue
            try:
                with turn, make(targets, timeout_seconds=CALL_SECONDS, **options) as client:
                    self._call(kind, client, rng, most)
            except Exception as error:
                self.wrong.append(f"{kind}: {type(error).__name__}: {error}")
                self._done.wait(1)

    def _call(self, kind, client, rng, most):
        for _ in range(rng.randint(1, 20)):
            if self._done.wait(_PAUSE_SECONDS) or self._is_resting.is_set():
                return
            model = rng.choice(self._models)
            count = rng.randint(1, min(most, self._reference.most(model)))
            self._reference.read(
                client,
                count=count,
                first_index=self._reference.draw(rng, count, model),
                model=model,
                labels=self._reference.draw_labels(rng, model),
                batch_size=rng.choice((None, None, -(-count // 3), 17)),
                include_probabilities=rng.random() < 0.2,
                timeout_seconds=CALL_SECONDS,
            )
            with self._lock:
                self.streams[kind] += 1
                self.images[kind] += count
