"""The moments at which a server has nothing to do: what it holds then can be compared."""

import time
from pathlib import Path

from tests.kit.servers import ServerProcess

from .leaks import Sample, take_sample
from .metrics import scrape

_BUSY = ("bgan_streams", "bgan_queued_calls")
_MODELS = ("bgan_model_info", "bgan_model_failures")
_QUIET_SECONDS = 2.0  # more than a retired model is kept in a soak
_AT_MOST_SECONDS = 30.0
_LOOK_SECONDS = 0.2
_SAMPLES = 3


class Rest:
    """Waits until a watched server with a metrics port rests."""

    def __init__(self, process: ServerProcess) -> None:
        """The models that it has now are its usual ones."""
        self._process = process
        self._models = _models(scrape(process))

    def sample(self) -> Sample | None:
        """What it holds when it has no calls, its usual models and, for a while, as many open files.

        None: it did not come to rest in 30 seconds. The caller sees to it that nobody calls.
        """
        end, seen, since = time.monotonic() + _AT_MOST_SECONDS, None, time.monotonic()
        while time.monotonic() < end:
            figures = scrape(self._process)
            time.sleep(_LOOK_SECONDS)  # the look at its metrics ends too
            state = (sum(figures[name,] for name in _BUSY), _models(figures), self._files())
            if state != seen or state[:2] != (0, self._models):
                seen, since = state, time.monotonic()
            elif time.monotonic() - since >= _QUIET_SECONDS:
                return min((take_sample(self._process.process.pid) for _ in range(_SAMPLES)), key=_held)
        return None

    def _files(self):
        return len(list(Path(f"/proc/{self._process.process.pid}/fd").iterdir()))


def _models(figures):
    """How many models it holds, and how many files are refused."""
    return [sum(value for (name, *_), value in figures.items() if name == wanted) for wanted in _MODELS]


def _held(sample):
    return sample.allocated_mib
