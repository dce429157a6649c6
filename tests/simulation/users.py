"""The callers of a simulation: what they ask for, and what they must get."""

import asyncio

from bgan.clients import RetryPolicy, SamplingError

from .hosts import secret
from .reference import COUNT, SEEDS, STARTS, is_right

_TIMEOUT_SECONDS = 25.0
_LATE_SECONDS = 1.0


class Stream:
    """One stream of a caller, which holds what arrives against what is right."""

    def __init__(self, scenario, client, name, rng, *, ports, count=None):
        self._scenario, self._client, self._name, self._ports = scenario, client, name, ports
        self._world = scenario.world
        self._count = count or rng.randint(1, COUNT)
        self._first = rng.choice(STARTS) + rng.randint(0, COUNT - self._count)
        self._seed = rng.choice(SEEDS)
        self._batch_size = rng.choice((None, 30, 50, 64) if self._count > 100 else (None, 7, 20))
        self._with_probabilities = rng.random() < 0.1
        self.next_index = self._first
        self.revision = None

    async def run(self):
        """Ask and check; whether it was complete."""
        started, error = self._world.now, None
        try:
            await self._read()
        except SamplingError as failure:
            error = failure
        except Exception as failure:
            self._blame(f"{type(failure).__name__} is no SamplingError: {failure}")
            return False
        ended = self._world.now
        self._world.note(self._name, self._first, self.next_index, "ok" if error is None else error.code.name)
        paused = self._scenario.paused_seconds(self._name, started, ended)
        if ended - started > _TIMEOUT_SECONDS + paused + _LATE_SECONDS:
            self._blame(f"took {ended - started:.1f} s, {paused:.1f} s of them paused")
        if error is not None:
            self._check_error(error, started, ended)
        elif self.next_index != self._first + self._count:
            self._blame("ended early without an error")
        return error is None

    async def _read(self):
        batches = self._client.sample_binary_images(
            image_count=self._count,
            seed=self._seed,
            first_index=self._first,
            batch_size=self._batch_size,
            include_probabilities=self._with_probabilities,
            timeout_seconds=_TIMEOUT_SECONDS,
        )
        async for batch in batches:
            if batch.first_index != self.next_index:
                self._blame(f"images from {batch.first_index}")
            self.revision = self.revision or batch.revision
            if batch.revision != self.revision or batch.seed != self._seed or not is_right(batch):
                self._blame(f"images {batch.first_index} to {batch.next_index} are wrong")
            self.next_index = batch.next_index

    def _check_error(self, error, started, ended):
        if error.next_index is not None and error.next_index != self.next_index:
            self._blame(f"says that {error.next_index} is next: {error}")
        why = self._scenario.excuse(error, self._name, self._ports, started, ended)
        if why is None:
            self._blame(f"failed without a fault: {error}")

    def _blame(self, text):
        self._world.blame(f"{self._name}, a stream from {self._first} at {self.next_index}: {text}")


def caller(scenario, name, ports, rng, *, pause_seconds, count=None):
    """The main coroutine function of a process that asks for streams, one after the other, to the end."""

    async def main():
        policy = rng.choice((None, RetryPolicy(attempts=1000)))
        async with scenario.world.client(*ports, token=secret(name.partition(" ")[0]), retry=policy) as client:
            while not scenario.is_ending:
                await Stream(scenario, client, name, rng, ports=ports, count=count).run()
                await asyncio.sleep(rng.uniform(0.1, pause_seconds))

    return main
