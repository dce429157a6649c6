"""What the processes of one training have in common: settings, images, and the state that they begin with."""

import platform
from typing import Any

import torch
from torch import Tensor

from ..common.errors import RunError
from ..config.images import HELD_OUT_FILES
from ..config.setting import option
from ..config.training import TrainingConfig
from ..data.dataset import BinaryDataset
from .distributed import World
from .trainer import Trainer

_OF_A_MACHINE = {"data_digest", "device", "data_dir", "data", *HELD_OUT_FILES}


def check_agreement(world: World, config: TrainingConfig, dataset: BinaryDataset) -> None:
    """Raise RunError, in all processes, where one has other settings or images than the first; it says which."""
    if world.size == 1:
        return
    everyone = world.gather(_decisive(config, dataset))
    first = everyone[0]
    for rank, own in enumerate(everyone):
        different = [name for name in first if own[name] != first[name]]
        if "images" in different:
            raise RunError(f"process {rank} reads other images than process 0; give all machines the same files")
        if different:
            listed = ", ".join(f"{name} {first[name]} -> {own[name]}" for name in different)
            raise RunError(
                f"process {rank} has other settings than process 0 ({listed}); start all of them with one command"
            )


def _decisive(config: TrainingConfig, dataset: BinaryDataset) -> dict[str, Any]:
    """All that decides weights, by name, settings as on the command line."""
    settings = {"preset": config.preset, **config.settings(), **config.data.options.to_dict()}
    kept = {option(name): value for name, value in settings.items() if name not in _OF_A_MACHINE}
    kept["images"] = dataset.digest or dataset.content_digest()
    versions = {"torch": torch.__version__, "OMP_NUM_THREADS": torch.get_num_threads(), "processor": _processor()}
    return {**kept, **versions}


def _processor() -> str:
    """What computes here, as far as bits depend on it: optimizers of two kinds would drift apart."""
    own = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{own} {torch.cuda.get_device_name()}" if torch.cuda.is_available() else own


def share_state(world: World, trainer: Trainer) -> None:
    """Give all processes the weights, statistics, optimizers and step of the first. Raises PeerLostError."""
    if world.size == 1:
        return
    state: tuple[dict[str, Tensor], int] | None = None
    if world.is_first:
        state = {name: tensor.cpu() for name, tensor in trainer.state_dict().items()}, trainer.step
    state = world.from_first(state)
    if not world.is_first:
        assert state is not None  # the first process has one
        trainer.load_state_dict(*state)
