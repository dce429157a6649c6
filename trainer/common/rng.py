"""Random numbers as a function of (seed, purpose, step), so that a resumed run draws what an unbroken one does."""

import hashlib

import torch

CPU = torch.device("cpu")


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose and index of a run's seed."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def random_stream(
    seed: int, purpose: str, index: int = 0, *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator at the start of the stream of (seed, purpose, index)."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose, index))
