"""Checkpoints: the tensors of a run, with a sidecar that names their step."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..common.errors import CheckpointError
from ..common.files import as_text
from ..common.image_shape import ImageShape
from ..common.tensor_files import load_tensors, save_tensors, tensors_under
from ..config.training import TrainingConfig
from ..networks.build import AnyGenerator, configured_discriminators, configured_generator
from ..networks.discriminators import Discriminators
from ..networks.gates import GatedGenerator
from ..networks.own import OwnDiscriminator
from ..networks.trial import try_discriminator
from .gate_rates import hold_rates
from .given import NOTHING_GIVEN, Given

MAX_CHECKPOINTS = 3
_REASON_AT_MOST = 200  # characters of what torch says, which lists every tensor
EMA_NAME = "average"
"""What checkpoints of all versions call the EMA generator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointMeta:
    """How far a run had come when a checkpoint was written."""

    step: int
    """Generator iterations done."""
    epoch: int
    slope: float
    """The slope of the binary neurons in the last iteration done, which the weights were made with."""
    image_shape: ImageShape
    seconds: float
    """Time spent in training so far."""
    classes: tuple[str, ...] = ()
    """The names of the classes that images are made of, by label; none for a run without --conditional."""
    class_counts: tuple[int, ...] = ()
    """How many images of each class it is trained on; none in checkpoints of older versions."""


class Checkpoint(NamedTuple):
    """A checkpoint that was read and found whole."""

    meta: CheckpointMeta
    tensors: dict[str, Tensor]


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], meta: CheckpointMeta) -> Path:
    """Write a checkpoint and remove all but the newest ones. Raises OSError and leaves the old ones then."""
    path = folder / f"step_{meta.step:08d}.safetensors"
    save_tensors(path, tensors, asdict(meta))
    for left in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
        left.unlink(missing_ok=True)
    for old in checkpoint_files(folder)[MAX_CHECKPOINTS:]:
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    return path


def checkpoint_files(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    return sorted(folder.glob("step_*.safetensors"), reverse=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint. Raises CheckpointError unless it is whole."""
    tensors, sidecar = load_tensors(path)
    try:
        del sidecar["sha256"]
        classes = tuple(map(as_text, sidecar.get("classes", ())))
        counts = tuple(sidecar.get("class_counts", ()))
        shaped = {"image_shape": ImageShape(*sidecar["image_shape"]), "classes": classes, "class_counts": counts}
        meta = CheckpointMeta(**{**sidecar, **shaped})
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error})") from error
    return Checkpoint(meta, tensors)


def trained_generator(
    config: TrainingConfig, checkpoint: Checkpoint, *, averaged: bool = True, given: Given = NOTHING_GIVEN
) -> AnyGenerator:
    """The generator of a run as the checkpoint has it, in eval mode.

    The EMA generator if there is one, its gates held at their rate, or with `averaged` False the one that is
    trained. Raises ConfigError where one of Python's is not `given`, and CheckpointError where what is given is
    another network.
    """
    meta = checkpoint.meta
    generator = configured_generator(config, meta.image_shape, len(meta.classes), given.generator)
    name = EMA_NAME if averaged and config.optimization.ema_decay else "generator"
    load_module(generator, f"generator {config.networks.network}", tensors_under(checkpoint.tensors, f"{name}."))
    if name == EMA_NAME and isinstance(generator, GatedGenerator):
        hold_rates(generator, config.inner.gate_rate or 1, meta.slope, meta.class_counts)
    return generator.eval()


def trained_discriminators(
    config: TrainingConfig, checkpoint: Checkpoint, *, given: Given = NOTHING_GIVEN
) -> Discriminators:
    """The discriminators of a run as the checkpoint has them, in eval mode and with nothing left to train.

    Raises ConfigError and CheckpointError as `trained_generator`.
    """
    meta = checkpoint.meta
    discriminators = configured_discriminators(config, meta.image_shape, len(meta.classes), given.discriminators)
    what = f"discriminator {config.networks.discriminator}"
    load_module(discriminators, what, tensors_under(checkpoint.tensors, "discriminator."))
    for each in discriminators:
        if isinstance(each, OwnDiscriminator):
            try_discriminator(each, meta.image_shape)
    return discriminators.requires_grad_(False).eval()


def load_module(module: nn.Module, what: str, tensors: dict[str, Tensor]) -> None:
    """Give a module its tensors of a checkpoint. Raises CheckpointError where they are those of another one."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:_REASON_AT_MOST]
        raise CheckpointError(
            f"the checkpoint is of another {what} than there is now ({reason}); bring back the one that was "
            "trained"
        ) from error


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The state of an optimizer as tensors named PARAMETER.SLOT."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{slot}": value for index, slots in state.items() for slot, value in slots.items()}


def load_optimizer(optimizer: Optimizer, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give an optimizer of the module's parameters the state that `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, slot = name.partition(".")
        state.setdefault(int(index), {})[slot] = value
    if state:  # laid out in memory as the parameters are
        parameters = list(module.parameters())  # frozen ones have no state
        for place, slots in state.items():
            parameter = parameters[place]
            for slot, value in slots.items():
                if value.shape == parameter.shape:
                    slots[slot] = torch.empty_like(parameter, requires_grad=False).copy_(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def load_newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint of a folder, or None where there is none.

    `warn` is called with a line for each damaged one. Raises CheckpointError where all of them are damaged.
    """
    paths = checkpoint_files(folder)
    for path in paths:
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            warn(f"{error}; falling back to the one before it")
    if paths:
        raise CheckpointError(f"no checkpoint in {folder} is whole; move the run's folder away to start again")
    return None
