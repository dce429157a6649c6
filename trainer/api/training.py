"""Training from Python."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from ..common.console import say
from ..common.errors import ConfigError
from ..config.command import default_name
from ..config.images import DatasetSpec
from ..config.training import TrainingConfig
from ..data.dataset import BinaryDataset
from ..evaluation.metrics.table import all_metrics
from ..networks.own import NetworkSource
from ..training.callbacks import Callback
from ..training.distributed import ALONE, World
from ..training.loop import Evaluate
from ..training.loop import train as run_training
from ..training.objectives import Objective
from ..training.trainer import resolve_device
from ..training.training_set import with_dataset
from .checks import check_type
from .measuring import evaluate, reference_of
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
    `callbacks` see steps, samples, checkpoints and, with `evaluate_every` of the settings, evaluations: against
    the validation images if the settings hold any out, else the test images, and of a data set without these as
    `evaluate` does. `folder`: None is one in runs/ (or BGAN_RUNS_DIR), named by the
    settings. `console` shows progress; `warn` is called with what is odd.

    Raises UserError, whose text is one line: ConfigError for what cannot be trained so, before there is a folder,
    DataError, RunError, DivergenceError, CallbackError, and Interrupted after a signal. The newest checkpoint is
    kept.
    """
    check_arguments(config, dataset, callbacks, console)
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
    measure = world.together(lambda: _evaluation(config, dataset, shown, world))
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode
        run_training(config, run, shown, warn, world, dataset=dataset, callbacks=callbacks, evaluate=measure)
    return run


def check_arguments(config: object, dataset: object, callbacks: object, console: object) -> None:
    """Raise ConfigError where one is of the wrong type."""
    check_type("config", config, TrainingConfig, "a TrainingConfig, as configure() gives")
    data = "a BinaryDataset, as load_dataset() and BinaryDataset.from_arrays() give"
    check_type("dataset", dataset, (BinaryDataset, type(None)), data)
    check_type("console", console, (Console, type(None)), "a rich.console.Console, or None")
    check_type("callbacks", callbacks, (list, tuple), "a list of callbacks")
    assert isinstance(callbacks, list | tuple)
    for callback in callbacks:
        if isinstance(callback, type):
            raise ConfigError(f"callbacks holds the class {callback.__name__}; give an object of it")
        check_type("one of callbacks", callback, Callback, "an object of a subclass of Callback")


def _evaluation(
    config: TrainingConfig, dataset: BinaryDataset | None, console: Console, world: World
) -> Evaluate | None:
    """What measures the run while it is trained, its real images read; None where nothing does."""
    if config.run.evaluate_every is None or not world.is_first:
        return None
    all_metrics()  # one that is broken is named before there is a run
    device = resolve_device(config.run.device, world)
    images = config.data if dataset is None else dataset.spec or dataset
    is_validated = isinstance(images, DatasetSpec) and bool(images.validation_images or images.validation_data)
    reference = reference_of(
        images,
        split="validation" if is_validated else "test",
        device=device,
        report=partial(say, console),
    )
    return lambda run: evaluate(run, reference, device=config.run.device).metrics


def _say_warning(console: Console, text: str) -> None:
    say(console, f"warning: {text}")
