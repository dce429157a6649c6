"""What a training run is made of: every setting, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError
from .estimator_table import ESTIMATORS, refusal

NEURONS = ("dbn", "sbn", "real")
NETWORKS = ("mlp", "cnn")
OBJECTIVES = ("wgan-gp", "wgan", "gan")
DATASETS = ("auto", "mnist", "digits")
OPTIMIZERS = ("adam", "rmsprop")
OPTIMIZER_FORMS = ("torch", "tensorflow")
GENERATOR_NORMS = ("batch", "affine")
DISCRIMINATOR_NORMS = ("none", "batch", "affine")
INITIALIZATIONS = ("he", "truncated-normal")
TRAINING_SPLITS = ("train", "all")

_CRITIC_STEPS = {"wgan-gp": 5, "wgan": 5, "gan": 1}
_OPTIMIZER = {"wgan-gp": "adam", "wgan": "rmsprop", "gan": "adam"}

# Settings that say how long or where to train, not what is computed: a run may go on under other ones.
RESUMABLE_SETTINGS = frozenset({"epochs", "device", "data_dir"})


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """All settings of a training run. Raises ConfigError where a value is out of range."""

    preset: str | None = None
    """The preset that the settings began from, for the record; None: the defaults."""
    neuron: str = "dbn"
    """Output neurons: "dbn" (deterministic binary), "sbn" (stochastic binary) or "real" (sigmoid)."""
    network: str = "mlp"
    """The network family of generator and discriminator: "mlp" or "cnn"."""
    objective: str = "wgan-gp"
    """The GAN objective: "wgan-gp", "wgan" (weight clipping) or "gan" (non-saturating)."""
    estimator: str = "sigmoid-adjusted"
    """The gradient through binary neurons: one of `estimator_table.ESTIMATORS`. Without effect on real ones."""
    estimator_samples: int | None = None
    """Images that the estimator draws of each latent; None: its own number, or none to choose."""
    estimator_temperature: float | None = None
    """Temperature of the estimator's relaxation; None: its own, or it has none."""
    dataset: str = "auto"
    """The data set: "mnist", "digits", or "auto" for the first of them that is there."""
    data_dir: str | None = None
    """Where data sets lie or are downloaded to; None: the environment's BGAN_DATA_DIR, then ./data."""
    latent_size: int = 128
    """Latent variables per image."""
    epochs: int = 20
    """Epochs; one is floor(images / batch_size) generator iterations."""
    batch_size: int = 64
    """Images per batch."""
    learning_rate: float = 1e-4
    """Learning rate of both networks."""
    optimizer: str | None = None
    """"adam" (betas 0.5 and 0.9) or "rmsprop"; None: rmsprop for "wgan", adam otherwise."""
    optimizer_form: str = "torch"
    """"torch", or "tensorflow": epsilon and the start of RMSProp's accumulator as TF1 has them."""
    generator_norm: str = "batch"
    """Normalization in the generator: "batch" (hidden layers) or "affine" (all layers, no statistics)."""
    discriminator_norm: str = "none"
    """Normalization in the discriminator's hidden layers: "none", "batch" or "affine"."""
    initialization: str = "he"
    """Initial weights: "he" or "truncated-normal" (0.02)."""
    critic_steps: int | None = None
    """Discriminator steps per generator step; None: 5 for "wgan-gp" and "wgan", 1 for "gan"."""
    critic_bursts: bool = False
    """100 discriminator steps in each of the first 25 iterations and in every 500th."""
    fresh_batches: bool = True
    """Fresh images and latents for every step; False: one batch of each serves a whole iteration."""
    training_split: str = "train"
    """Images to train on: "train", or "all", which leaves none to measure with."""
    penalty_weight: float = 10.0
    """Weight of the gradient penalty ("wgan-gp")."""
    clip_value: float = 0.01
    """Bound on every discriminator weight ("wgan")."""
    slope_rate: float = 1.1
    """The slope of the binary neurons starts at 1 and is multiplied by this after each epoch."""
    slope_cap: float | None = None
    """The slope never exceeds this; None: no cap."""
    seed: int = 0
    """Decides the initial weights, the order of the data and all noise."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps", ..."""

    def __post_init__(self) -> None:
        """Fill in what follows from the objective and check every value."""
        _check_choice("neuron", self.neuron, NEURONS)
        _check_choice("network", self.network, NETWORKS)
        _check_choice("objective", self.objective, OBJECTIVES)
        _check_choice("estimator", self.estimator, tuple(ESTIMATORS))
        _check_choice("dataset", self.dataset, DATASETS)
        if self.optimizer is None:
            object.__setattr__(self, "optimizer", _OPTIMIZER[self.objective])
        if self.critic_steps is None:
            object.__setattr__(self, "critic_steps", _CRITIC_STEPS[self.objective])
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("optimizer_form", self.optimizer_form, OPTIMIZER_FORMS)
        _check_choice("generator_norm", self.generator_norm, GENERATOR_NORMS)
        _check_choice("discriminator_norm", self.discriminator_norm, DISCRIMINATOR_NORMS)
        _check_choice("initialization", self.initialization, INITIALIZATIONS)
        _check_choice("training_split", self.training_split, TRAINING_SPLITS)
        for name in ("latent_size", "epochs", "batch_size", "critic_steps"):
            _check_at_least(name, getattr(self, name), 1)
        if self.batch_size == 1:
            raise ConfigError("batch-size must be at least 2: batch normalization needs more than one image")
        for name in ("learning_rate", "slope_rate", "clip_value"):
            _check_positive(name, getattr(self, name))
        if self.slope_cap is not None:
            _check_at_least("slope_cap", self.slope_cap, 1)
        _check_at_least("penalty_weight", self.penalty_weight, 0)
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; it must lie between 0 and 2^63 - 1")
        self._settle_estimator()

    def _settle_estimator(self) -> None:
        """Fill in what follows from the estimator, and check that it can be used with the rest."""
        entry = ESTIMATORS[self.estimator]
        for name, own in (("estimator_samples", entry.samples), ("estimator_temperature", entry.temperature)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, own)
            elif own is None:
                raise ConfigError(f"{option(name)} has no meaning for {self.estimator}; leave it out")
        if self.estimator_samples is not None:
            _check_at_least("estimator_samples", self.estimator_samples, 2)
        if self.estimator_temperature is not None:
            _check_positive("estimator_temperature", self.estimator_temperature)
        reason = refusal(
            self.estimator,
            neuron=self.neuron,
            objective=self.objective,
            discriminator_norm=self.discriminator_norm,
        )
        if reason is not None:
            raise ConfigError(f"the estimator {self.estimator} {reason}")

    def resolved(self, *, dataset: str) -> TrainingConfig:
        """The same settings with the data set that "auto" turned out to be."""
        return dataclasses.replace(self, dataset=dataset)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> TrainingConfig:
        """The settings that `to_dict` gave. Raises ConfigError on a name this version does not know."""
        unknown = sorted(settings.keys() - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"unknown settings {', '.join(unknown)}; were they written by another version?")
        return cls(**settings)


SETTING_NAMES = frozenset(field.name for field in dataclasses.fields(TrainingConfig))


def differences(old: TrainingConfig, new: TrainingConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that change what is computed and differ, by name: (old value, new value)."""
    before, after = old.to_dict(), new.to_dict()
    return {
        name: (before[name], after[name])
        for name in before
        if name not in RESUMABLE_SETTINGS and before[name] != after[name]
    }


def option(name: str) -> str:
    """How the setting `name` is spelled on the command line, without the dashes in front."""
    return name.replace("_", "-")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{option(name)} is {value!r}; choose one of {', '.join(choices)}")


def _check_at_least(name: str, value: float, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(f"{option(name)} is {value}; it must be at least {least}")


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{option(name)} is {value}; it must be above 0")
