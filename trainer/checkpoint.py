"""Checkpoints: the tensors as safetensors, with a JSON sidecar that names their step and digest.

The sidecar is written last, so a checkpoint that has one is complete; the digest tells if it was
damaged since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from .config import TrainingConfig
from .errors import CheckpointError
from .files import write_atomically, write_json
from .networks import Generator, ImageShape, build_generator

KEPT = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run had come when a checkpoint was written."""

    step: int
    """Generator iterations done."""
    epoch: int
    """Epochs completed."""
    slope: float
    """The slope of the binary neurons in the last iteration done, which the weights were made with."""
    image_shape: ImageShape
    """The shape of one image."""
    seconds: float
    """Time spent in training so far."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read and found whole."""

    progress: Progress
    tensors: dict[str, Tensor]


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], progress: Progress) -> Path:
    """Write a checkpoint and remove all but the newest ones. Raises OSError and leaves the old ones then."""
    path = folder / f"step_{progress.step:08d}.safetensors"
    content = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    )
    write_atomically(path, content)
    write_json(path.with_suffix(".json"), {**asdict(progress), "sha256": hashlib.sha256(content).hexdigest()})
    for old in checkpoint_files(folder)[KEPT:]:
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    return path


def checkpoint_files(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    return sorted(folder.glob("step_*.safetensors"), reverse=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint. Raises CheckpointError unless it is whole."""
    try:
        content = path.read_bytes()
        sidecar = json.loads(path.with_suffix(".json").read_text())
        digest = sidecar.pop("sha256")
        progress = Progress(**{**sidecar, "image_shape": ImageShape(*sidecar["image_shape"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error})") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(f"checkpoint {path} is truncated or damaged: its digest is not that of its sidecar")
    return Checkpoint(progress, safetensors.torch.load(content))


def trained_generator(config: TrainingConfig, checkpoint: Checkpoint) -> Generator:
    """The generator of a run as the checkpoint has it, in eval mode."""
    generator = build_generator(
        config.network, checkpoint.progress.image_shape, config.latent_size, norm=config.generator_norm
    )
    prefix = "generator."
    generator.load_state_dict(
        {key.removeprefix(prefix): value for key, value in checkpoint.tensors.items() if key.startswith(prefix)}
    )
    return generator.eval()


def load_newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint of a folder, or None where there is none; `warn` hears of damaged ones.

    Raises CheckpointError where there are checkpoints and all of them are damaged.
    """
    paths = checkpoint_files(folder)
    for path in paths:
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            warn(f"{error}; falling back to the one before it")
    if paths:
        raise CheckpointError(f"no checkpoint in {folder} is whole; move the run's folder away to start anew")
    return None
