"""Training from Python."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from ..common.console import say
from ..config.command import default_name
from ..config.training import TrainingConfig
from ..data.dataset import BinaryDataset
from ..networks.own import NetworkSource
from ..training.callbacks import Callback
from ..training.distributed import ALONE, World
from ..training.loop import train as run_training
from ..training.objectives import Objective
from ..training.training_set import with_dataset
from .run import Networks, Run, given_parts
from .warning import Warn, warn_usually


def train(
    config: TrainingConfig,
    dataset: BinaryDataset | None = None,
    *,
    generator: NetworkSource | None = None,
    discriminators: Networks = None,
    objective: Objective | None = None,
    callbacks: Sequence[Callback] = (),
    folder: str | os.PathLike[str] | None = None,
    console: Console | None = None,
    warn: Warn | None = None,
    world: World = ALONE,
) -> Run:
    """Train to the last epoch, and return the run; the same call again resumes one that was stopped.

    `dataset`: None is the one that the settings name. `generator` is any module from latents [B, Z], and labels
    [B] if the run is conditional, to logits [B, C, H, W]; `discriminators` are one or several from images
    [B, C, H, W], and labels, to logits [B]. Of a module a copy is trained; a function is called with
    `image_shape`, `class_count` and, for the generator, `latent_size`, and draws its weights by the seed.
    `callbacks` see steps, samples and checkpoints. `folder`: None is one in runs/ (or BGAN_RUNS_DIR), named by the
    settings. `console` shows progress; `warn` is called with what is odd.

    Raises UserError, whose text is one line: ConfigError for what cannot be trained so, before there is a folder,
    DataError, RunError, DivergenceError, CallbackError, and Interrupted after a signal. The newest checkpoint is
    kept.
    """
    given = given_parts(generator, discriminators, objective)
    config = given.named_in(config)
    if dataset is not None:
        config = with_dataset(config, dataset)
    if folder is None:
        folder = Path(os.environ.get("BGAN_RUNS_DIR") or "runs") / default_name(config)
    run = Run(Path(folder), given)
    if warn is None:
        warn = warn_usually if console is None else partial(_say_warning, console)
    shown = console or Console(quiet=True)
    run_training(config, run, shown, warn, world, dataset=dataset, callbacks=callbacks)
    return run


def _say_warning(console: Console, text: str) -> None:
    say(console, f"warning: {text}")
