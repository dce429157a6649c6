"""A run as Python has it: trained, or opened again."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from torch import nn

from ..common.entry_points import is_given
from ..common.errors import ConfigError, RunError
from ..evaluation.generator import TrainedGenerator
from ..evaluation.samples import Samples
from ..networks.own import NetworkSource
from ..training.checkpoint import trained_generator
from ..training.given import Given
from ..training.objectives import Objective
from ..training.run import Run as _Run
from ..training.run import find_run as _find_run
from ..training.run import trained_checkpoint
from ..training.trainer import resolve_device
from .warning import Warn, warn_usually

Networks = NetworkSource | Sequence[NetworkSource] | None
"""One, several, or those that the settings name."""


class Run(_Run):
    """A run: its folder, and the networks and the objective that were given from Python, if any."""

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        generator: NetworkSource | None = None,
        discriminators: Networks = None,
        objective: Objective | None = None,
    ) -> Self:
        """The run in a folder; what was given to `train` is given here again.

        Raises RunError where there is no run, or something that was given is missing.
        """
        run = cls(Path(path), given_parts(generator, discriminators, objective))
        config, given = run.config(), run.given
        parts = (
            ("generator", [config.networks.network], given.generator is not None),
            ("discriminators", config.networks.discriminator.split("+"), bool(given.discriminators)),
            ("objective", [config.objective.objective], given.objective is not None),
        )
        for argument, names, is_there in parts:
            if any(map(is_given, names)) and not is_there:
                raise RunError(
                    f"{run.folder} was trained with {argument} of Python, {'+'.join(names)}: give them again, "
                    f"Run.open(path, {argument}=...)"
                )
        return run

    def sample(
        self,
        count: int = 64,
        *,
        seed: int = 0,
        labels: Sequence[int | str] | None = None,
        binarization: str | None = None,
        device: str = "cpu",
        warn: Warn = warn_usually,
    ) -> Samples:
        """`count` images of the newest checkpoint, uint8 [N, C, H, W] in `images`, as an exported file's would be.

        `labels` are classes by number or name, which take turns; None: as they are in the training set.
        `binarization` is "threshold" or "bernoulli"; None: that of the run's neurons. Raises RunError without a
        checkpoint, and ConfigError for labels that the run has not.
        """
        generator = TrainedGenerator.from_run(self, warn, resolve_device(device))
        return generator.sample(count, seed=seed, binarization=binarization, labels=labels)

    def trained_generator(self, *, averaged: bool = True, warn: Warn = warn_usually) -> nn.Module:
        """The generator of the newest checkpoint, in eval mode.

        Latents [B, Z], and labels [B] where it has classes, to logits [B, C, H, W], which are yet to be multiplied
        by the slope. `averaged` False: not the average of its weights (EMA).
        """
        return trained_generator(
            self.config(), trained_checkpoint(self, warn), averaged=averaged, given=self.given
        )


def given_parts(generator: NetworkSource | None, discriminators: Networks, objective: Objective | None) -> Given:
    """What was given. Raises ConfigError where it is of the wrong kind."""
    if objective is not None and not isinstance(objective, Objective):
        raise ConfigError(f"objective is of type {type(objective).__name__}; give an Objective")
    several: list[NetworkSource] = []
    if isinstance(discriminators, nn.ModuleList | Sequence):
        several = list(discriminators)
    elif discriminators is not None:
        several = [discriminators]
    for name, source in (*(("discriminators", each) for each in several), ("generator", generator)):
        if (source is not None or name == "discriminators") and not callable(source):
            raise ConfigError(
                f"{name}: type {type(source).__name__} is no network; give a torch.nn.Module, or what builds one"
            )
    return Given(generator=generator, discriminators=tuple(several), objective=objective)


def find_run(name: str | None = None, runs_dir: str | os.PathLike[str] = "runs") -> Run:
    """The run of that name or path, or the one with the newest checkpoint. Raises RunError where there is none."""
    return Run(_find_run(name, Path(runs_dir)).folder)
