"""Where a run begins that refines another one: with the weights of its generator, which stay as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError, RunError
from ..config.setting import option
from ..config.training import REFINED_SETTINGS, TrainingConfig
from ..networks.refiner import RefinedGenerator
from .checkpoint import Checkpoint, checkpoint_files, trained_generator
from .run import CONFIG_FILE, Run, find_run, trained_checkpoint
from .trainer import Trainer


def refined_settings(name: str, runs_dir: Path = Path("runs")) -> dict[str, Any]:
    """The settings that a run which refines the one of that name or path has from it, for `configure`.

    Where that is gone, those of a run in the folder that has refined it. Raises RunError where there is none.
    """
    try:
        config = find_run(name, runs_dir).config()
    except RunError:
        found = _refiner_of(name, runs_dir)
        if found is None:
            raise
        config = found
    settings = config.settings()
    return {each: settings[each] for each in REFINED_SETTINGS}


def load_base(trainer: Trainer, run: Run, warn: Callable[[str], None]) -> None:
    """Give a generator that refines another run's the weights of that, unless its own run has checkpoints.

    Raises RunError where that run is not there or is not trained, ConfigError where it cannot be refined so.
    """
    name = trainer.config.networks.refine
    if name is None or checkpoint_files(run.checkpoints):
        return
    base = find_run(name, run.folder.parent)
    config, checkpoint = base.config(), trained_checkpoint(base, warn)
    _check_settings(name, config, trainer.config)
    _check_images(name, checkpoint, trainer)
    if config.data.digest != trainer.config.data.digest:
        warn(f"the run {name} was trained on other images than its refiner is trained on")
    tensors = trained_generator(config, checkpoint).state_dict()
    for generator in (trainer.generator, trainer.sampled_generator):
        assert isinstance(generator, RefinedGenerator)
        generator.base.load_state_dict(tensors)


def _check_settings(name: str, base: TrainingConfig, config: TrainingConfig) -> None:
    """Raise ConfigError where a run with these settings cannot be refined by one with those."""
    neurons = {base.neurons.neuron, base.neurons.training_neuron} - {"real"}
    if neurons:
        raise ConfigError(
            f"the run {name} has {' and '.join(sorted(neurons))} neurons, and a refiner stands behind real ones; "
            "train a run with --neuron real for it"
        )
    if base.inner.neuron is not None:
        raise ConfigError(f"the run {name} has gates or hidden neurons, which a refiner cannot stand behind")
    own, theirs = config.settings(), base.settings()
    for each in REFINED_SETTINGS:
        if own[each] != theirs[each]:
            raise ConfigError(
                f"{option(each)} is {own[each]}, and that of the run {name}, which is refined, is {theirs[each]}; "
                "choose the same"
            )


def _check_images(name: str, checkpoint: Checkpoint, trainer: Trainer) -> None:
    """Raise ConfigError where a checkpoint is of other images than there are now."""
    old, new = ("x".join(map(str, shape)) for shape in (checkpoint.meta.image_shape, trainer.image_shape))
    if old != new:
        raise ConfigError(f"the run {name} makes images {old}, and those to train on are {new}; choose others")
    if checkpoint.meta.classes != trainer.classes:
        raise ConfigError(f"the run {name} has other classes than the images to train on; choose others")


def _refiner_of(name: str, runs_dir: Path) -> TrainingConfig | None:
    """The settings of a run in the folder that has refined that one."""
    for path in sorted(runs_dir.glob(f"*/{CONFIG_FILE}")):
        try:
            config = Run(path.parent).config()
        except RunError:  # of another version, say
            continue
        if config.networks.refine == name:
            return config
    return None
