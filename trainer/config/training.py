"""What a training run is made of: every setting, checked when it is made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ..common.errors import ConfigError
from .augment import NO_AUGMENTATION, parse_augment
from .checks import check_at_least, check_choice, check_fraction, check_positive, option
from .dataset import DatasetSpec
from .estimators import ESTIMATORS, refusal
from .images import ImageOptions

NEURONS = ("dbn", "sbn", "real")
NETWORKS = ("mlp", "cnn", "doubling-cnn")
DEFAULT_NETWORK = "mlp"
DISCRIMINATORS = ("mlp", "cnn", "wide-mlp", "strided-cnn")
OBJECTIVES = ("wgan-gp", "wgan", "gan", "relativistic")
DATASETS = (
    *("auto", "mnist", "digits", "fashion-mnist", "kmnist", "qmnist", "omniglot"),
    *(f"emnist-{part}" for part in ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")),
)
OPTIMIZERS = ("adam", "rmsprop")
OPTIMIZER_FORMS = ("torch", "tensorflow")
GENERATOR_NORMS = ("batch", "affine")
DISCRIMINATOR_NORMS = ("none", "batch", "affine")
INITIALIZATIONS = ("he", "truncated-normal")
TRAINING_SPLITS = ("train", "all")
OUTPUT_BIASES = ("zero", "mean")
LEARNING_RATE_DECAYS = ("none", "linear", "cosine")


_DISCRIMINATOR = {"mlp": "mlp", "cnn": "cnn", "doubling-cnn": "mlp"}
_DISCRIMINATOR_STEPS = {"wgan-gp": 5, "wgan": 5, "gan": 1, "relativistic": 1}
_OPTIMIZER = {"wgan-gp": "adam", "wgan": "rmsprop", "gan": "adam", "relativistic": "adam"}
_PENALTY_WEIGHT = {"wgan-gp": 10.0, "wgan": 10.0, "gan": 10.0, "relativistic": 1.0}


# Settings that say how long or where to train, not what is computed: a run may go on under other ones.
# With learning-rate decay the number of epochs decides every step, see `differences`.
RESUMABLE_SETTINGS = frozenset({"epochs", "device", "data_dir", "data"})

RENAMED_SETTINGS = {
    "average_decay": "ema_decay",
    "critic_steps": "discriminator_steps",
    "critic_bursts": "discriminator_bursts",
}
"""Settings of runs that an older version wrote, and what they are called today."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """All settings of a training run. Raises ConfigError where a value is out of range."""

    preset: str | None = None
    """The preset that the settings began from, for the record; None: the defaults."""
    neuron: str = "dbn"
    """Output neurons: "dbn" (deterministic binary), "sbn" (stochastic binary) or "real" (sigmoid)."""
    training_neuron: str | None = None
    """Output neurons while training; None: `neuron`, which always is what is sampled and exported."""
    network: str = DEFAULT_NETWORK
    """The generator's network, and the discriminator's unless that is named: "mlp", "cnn" or "doubling-cnn"."""
    discriminator: str | None = None
    """"mlp", "cnn", "wide-mlp" or "strided-cnn", or several joined by "+"; None: as `network` has it."""
    objective: str = "wgan-gp"
    """The GAN objective: "wgan-gp", "wgan" (weight clipping), "gan" (non-saturating) or "relativistic"."""
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
    data: str | None = None
    """A file or folder of images to train on, for which `dataset` is but a name; None: a data set by name."""
    data_digest: str | None = None
    """SHA-256 of the images of `data`, which is filled in when they are read."""
    image_options: ImageOptions = field(default_factory=ImageOptions)
    """How the images are read and made binary."""
    latent_size: int = 128
    """Latent variables per image."""
    epochs: int = 20
    """Epochs; one is floor(images / batch_size) generator iterations."""
    batch_size: int = 64
    """Images per batch."""
    learning_rate: float = 1e-4
    """Learning rate of both networks."""
    discriminator_learning_rate: float | None = None
    """Learning rate of the discriminator; None: that of both."""
    learning_rate_decay: str = "none"
    """The learning rate's way to 0 after the last step: "linear" or "cosine"; "none": it stays."""
    optimizer: str | None = None
    """"adam" or "rmsprop"; None: rmsprop for "wgan", adam otherwise."""
    adam_beta1: float = 0.5
    """Adam's decay of the mean gradient, in [0, 1)."""
    adam_beta2: float = 0.9
    """Adam's decay of the mean squared gradient, in [0, 1)."""
    optimizer_form: str = "torch"
    """"torch", or "tensorflow": epsilon and the start of RMSProp's accumulator as TF1 has them."""
    generator_norm: str = "batch"
    """Normalization in the generator: "batch" (hidden layers) or "affine" (all layers, no statistics)."""
    discriminator_norm: str = "none"
    """Normalization in the discriminator's hidden layers: "none", "batch" or "affine"."""
    initialization: str = "he"
    """Initial weights: "he" or "truncated-normal" (0.02)."""
    output_bias: str = "zero"
    """The generator's initial output bias: "zero", or "mean", the logit of the mean image."""
    ema_decay: float = 0.0
    """Decay, in [0, 1), of the averaged generator, which is then the one that is sampled; 0: none is kept."""
    discriminator_steps: int | None = None
    """Discriminator steps per generator step; None: 5 for "wgan-gp" and "wgan", else 1."""
    discriminator_bursts: bool = False
    """100 discriminator steps in each of the first 25 iterations and in every 500th."""
    fresh_batches: bool = True
    """Fresh images and latents for every step; False: one batch of each serves a whole iteration."""
    training_split: str = "train"
    """Images to train on: "train", or "all", which leaves none to measure with."""
    penalty_weight: float | None = None
    """Weight of the gradient penalty ("wgan-gp"), or gamma of R1 and R2 ("relativistic"); None: 10, or 1."""
    clip_value: float = 0.01
    """Bound on every discriminator weight ("wgan")."""
    conditional: bool = False
    """Whether images are made of classes, those of the data set's labels: both networks see them."""
    augment: str = NO_AUGMENTATION
    """What images pass through before they are judged: "none", or "translate", "translate:PIXELS", "hflip" and
    "vflip" joined by "+"."""
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
        check_choice("neuron", self.neuron, NEURONS)
        self._fill("training_neuron", self.neuron)
        check_choice("training_neuron", self.training_neuron, NEURONS)
        check_choice("network", self.network, NETWORKS)
        check_choice("objective", self.objective, OBJECTIVES)
        check_choice("estimator", self.estimator, tuple(ESTIMATORS))
        if self.data is None:
            check_choice("dataset", self.dataset, DATASETS)
        self._fill("discriminator", _DISCRIMINATOR[self.network])
        self._fill("optimizer", _OPTIMIZER[self.objective])
        self._fill("discriminator_steps", _DISCRIMINATOR_STEPS[self.objective])
        self._fill("penalty_weight", _PENALTY_WEIGHT[self.objective])
        self._fill("discriminator_learning_rate", self.learning_rate)
        assert self.discriminator is not None
        for name in self.discriminator.split("+"):
            check_choice("discriminator", name, DISCRIMINATORS)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("optimizer_form", self.optimizer_form, OPTIMIZER_FORMS)
        check_choice("generator_norm", self.generator_norm, GENERATOR_NORMS)
        check_choice("discriminator_norm", self.discriminator_norm, DISCRIMINATOR_NORMS)
        check_choice("initialization", self.initialization, INITIALIZATIONS)
        check_choice("training_split", self.training_split, TRAINING_SPLITS)
        check_choice("output_bias", self.output_bias, OUTPUT_BIASES)
        check_choice("learning_rate_decay", self.learning_rate_decay, LEARNING_RATE_DECAYS)
        parse_augment(self.augment)
        for name in ("latent_size", "epochs", "batch_size", "discriminator_steps"):
            check_at_least(name, getattr(self, name), 1)
        if self.batch_size == 1:
            raise ConfigError("batch-size must be at least 2: batch normalization needs more than one image")
        for name in ("learning_rate", "discriminator_learning_rate", "slope_rate", "clip_value"):
            check_positive(name, getattr(self, name))
        for name in ("adam_beta1", "adam_beta2", "ema_decay"):
            check_fraction(name, getattr(self, name))
        if self.slope_cap is not None:
            check_at_least("slope_cap", self.slope_cap, 1)
        assert self.penalty_weight is not None
        check_at_least("penalty_weight", self.penalty_weight, 0)
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; it must lie between 0 and 2^63 - 1")
        self._settle_estimator()

    def _settle_estimator(self) -> None:
        """Fill in what follows from the estimator, and check that it can be used with the rest."""
        entry = ESTIMATORS[self.estimator]
        for name, own in (("estimator_samples", entry.samples), ("estimator_temperature", entry.temperature)):
            if own is None and getattr(self, name) is not None:
                raise ConfigError(f"{option(name)} has no meaning for {self.estimator}; leave it out")
            self._fill(name, own)
        if self.estimator_samples is not None:
            check_at_least("estimator_samples", self.estimator_samples, 2)
        if self.estimator_temperature is not None:
            check_positive("estimator_temperature", self.estimator_temperature)
        assert self.training_neuron is not None
        assert self.discriminator is not None
        reason = refusal(
            self.estimator,
            neuron=self.training_neuron,
            objective=self.objective,
            discriminator_norm=self.discriminator_norm,
            discriminator=self.discriminator,
        )
        if reason is not None:
            raise ConfigError(f"the estimator {self.estimator} {reason}")

    def _fill(self, name: str, value: Any) -> None:
        """Set what was left to follow from other settings."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    @property
    def dataset_spec(self) -> DatasetSpec:
        """Which images to train on."""
        return DatasetSpec(
            dataset=self.dataset,
            data=self.data,
            data_dir=self.data_dir,
            options=self.image_options,
            digest=self.data_digest,
        )

    def resolved(self, *, dataset: str) -> TrainingConfig:
        """The same settings with the data set that "auto" turned out to be."""
        return dataclasses.replace(self, dataset=dataset)

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> TrainingConfig:
        """The settings that `to_dict` gave, today or under older names. Raises ConfigError on an unknown name."""
        settings = {RENAMED_SETTINGS.get(name, name): value for name, value in settings.items()}
        unknown = sorted(settings.keys() - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"unknown settings {', '.join(unknown)}; were they written by another version?")
        return cls(**{**settings, "image_options": ImageOptions(**settings.get("image_options", {}))})


SETTING_NAMES = frozenset(field.name for field in dataclasses.fields(TrainingConfig))


def differences(old: TrainingConfig, new: TrainingConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that change what is computed and differ, by name: (old value, new value)."""
    before, after = ({**config.to_dict(), **config.image_options.to_dict()} for config in (old, new))
    resumable = RESUMABLE_SETTINGS
    if "none" not in (old.learning_rate_decay, new.learning_rate_decay):
        resumable = resumable - {"epochs"}
    if old.data is not None and new.data is not None:
        resumable = resumable | {"dataset"}  # the name of their file, which may have been moved
    return {
        name: (before[name], after[name])
        for name in before
        if name not in {*resumable, "image_options"} and before[name] != after[name]
    }
