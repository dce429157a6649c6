"""Random numbers as a function of (seed, purpose, step), so that a resumed run draws what an unbroken one does."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CPU = torch.device("cpu")
_GLOBAL = threading.RLock()


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose and index of a run's seed."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def random_stream(
    seed: int, purpose: str, index: int = 0, *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator at the start of the stream of (seed, purpose, index)."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose, index))


@contextmanager
def global_generator(seed: int | None = None) -> Iterator[None]:
    """Hold torch's global generator, from a seed on if there is one, and leave it as it was.

    For code that can draw from no other; one thread at a time, so that trainings in threads draw what each draws
    alone.
    """
    with _GLOBAL, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        yield
