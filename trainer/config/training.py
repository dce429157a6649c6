"""The settings of a training run, in groups, each checked and concrete once it is made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..common import entry_points
from ..common.errors import ConfigError
from .augment import NO_AUGMENTATION, parse_augment
from .estimators import ESTIMATORS, estimator_entry, refusal
from .images import DATASETS, HELD_OUT_FILES, DatasetSpec, ImageOptions
from .inner import InnerConfig, inner_following
from .setting import Field, SettingsGroup, check_choice, fields_of, option, setting

Neuron = Literal["dbn", "sbn", "real"]
NEURONS: tuple[str, ...] = get_args(Neuron)
NETWORKS = ("mlp", "cnn", "doubling-cnn")
OBJECTIVES = ("wgan-gp", "wgan", "gan", "relativistic")
DISCRIMINATORS = ("mlp", "cnn", "wide-mlp", "strided-cnn")

# What follows from a network or an objective; that of others is the second value.
_DISCRIMINATOR = {"cnn": "cnn"}, "mlp"
_DISCRIMINATOR_STEPS = {"wgan-gp": 5, "wgan": 5}, 1
_OPTIMIZER = {"wgan": "rmsprop"}, "adam"
_PENALTY_WEIGHT = {"relativistic": 1.0}, 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig(SettingsGroup):
    """The networks, and how they begin."""

    network: str = setting(
        "The generator, and by default the discriminator: mlp, cnn or doubling-cnn.",
        "mlp",
        choices=NETWORKS,
        entry_points=entry_points.NETWORKS,
    )
    discriminator: str = setting(
        "The discriminator: mlp, cnn, wide-mlp or strided-cnn; several stand side by side, with a loss each.",
        separator="+",
        shown_default="mlp+strided-cnn, mlp for mlp; paper: as the generator",
        suggestions=DISCRIMINATORS,
    )
    latent_size: int = setting("Latent variables per image.", 128, at_least=1, below=10**6)
    width: float = setting(
        "Hidden units, or channels, of the generator, as a multiple; with gates the trunk and each part have an "
        "equal share of it.",
        above=0,
        at_most=64,
        shown_default="1; with gates of a CNN their number",
    )
    generator_norm: Literal["batch", "affine"] = setting(
        "Normalization in the generator: batch (hidden layers), or affine (all layers, no statistics) "
        "as in the published code.",
        "batch",
    )
    discriminator_norm: Literal["none", "batch", "affine"] = setting(
        "Normalization in the discriminator's hidden layers: none, batch or affine.", "none"
    )
    initialization: Literal["he", "truncated-normal"] = setting(
        "Initial weights: he, or truncated-normal (0.02).", "he"
    )
    output_bias: Literal["zero", "mean"] = setting(
        "The generator's initial output bias: zero, or mean, the logit of the mean image.", "zero"
    )
    clusters: int | None = setting(
        "Train a class-conditional GAN on so many clusters of alike images, not on labels; 100 suits MNIST.",
        None,
        at_least=2,
        at_most=1024,
    )
    """None: no clusters, but the labels where it is class-conditional."""
    refine: str | None = setting(
        "Train a refiner with binary neurons behind the generator of this run (a name or a folder, with --neuron "
        "real), which stays as it is; network, sizes and conditional are its.",
        None,
    )
    conditional: bool = setting(
        "Train a class-conditional GAN on the data set's labels.",
        shown_default="modern: on where there are labels, 100 images of each; else off; on with --clusters",
    )

    def __post_init__(self) -> None:
        """Check every value, and that there are classes where they are clusters."""
        SettingsGroup.__post_init__(self)
        if self.refine is not None:
            self._check_refine()
        if self.clusters is not None and not self.conditional:
            raise ConfigError(
                f"clusters is {self.clusters}, but conditional is off; add --conditional, or leave out clusters"
            )
        for name in self.discriminator.split("+"):
            check_choice("discriminator", name, DISCRIMINATORS, entry_points.DISCRIMINATORS)

    def _check_refine(self) -> None:
        """Check that a run with this network can be refined."""
        if self.network not in NETWORKS:
            raise ConfigError(
                f"refine takes a run with a network of bgan's, not {self.network}; choose one of "
                f"{', '.join(NETWORKS)}"
            )
        if self.clusters is not None:
            raise ConfigError(
                "refine takes runs without clusters, which each run has of its own; leave out clusters"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class NeuronConfig(SettingsGroup):
    """The output neurons, and the gradient through them."""

    neuron: Neuron = setting("Output neurons: dbn (deterministic), sbn (stochastic) or real (sigmoid).", "dbn")
    """Those that are sampled and exported."""
    training_neuron: Neuron = setting(
        "Output neurons during training, if different.", shown_default="sbn for a cnn's dbn; paper: as --neuron"
    )
    estimator: str = setting(
        f"Gradient estimator through binary neurons: {', '.join(ESTIMATORS)}.",
        "sigmoid-adjusted",
        choices=tuple(ESTIMATORS),
        entry_points=entry_points.ESTIMATORS,
        shown_default="reinmax; paper, mlp: sigmoid-adjusted",
    )
    estimator_samples: int | None = setting(
        "Images drawn per latent.", at_least=2, below=10**4, shown_default="8 for reinforce-loo, 20 for bgan"
    )
    """None: the estimator has no such number."""
    estimator_temperature: float | None = setting(
        "Temperature of a relaxation; rebar and relax learn theirs from here on.",
        above=0,
        shown_default="0.5 for st-gumbel and concrete, 0.1 for rebar and relax",
    )
    """None: the estimator has no temperature."""
    slope_rate: float = setting("After each epoch the neurons' slope is multiplied by this.", 1.1, above=0)
    slope_cap: float | None = setting("The slope never exceeds this.", None, at_least=1, shown_default="none")

    def __post_init__(self) -> None:
        """Check every value, and that the estimator has what is set of it."""
        SettingsGroup.__post_init__(self)
        entry = estimator_entry(self.estimator)
        if entry.samples is None and self.estimator_samples is not None:
            raise _without_meaning("estimator_samples", self.estimator)
        if entry.temperature is None and self.estimator_temperature is not None:
            raise _without_meaning("estimator_temperature", self.estimator)


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveConfig(SettingsGroup):
    """The GAN objective, and what an iteration consists of."""

    objective: str = setting(
        "wgan-gp, wgan (weight clipping), gan (non-saturating) or relativistic (pairs, with R1 and R2).",
        "wgan-gp",
        choices=OBJECTIVES,
        entry_points=entry_points.OBJECTIVES,
    )
    penalty_weight: float = setting(
        "Weight of the gradient penalty (wgan-gp), or gamma of R1 and R2 (relativistic).",
        at_least=0,
        shown_default="2; paper: 10",
    )
    clip_value: float = setting("Bound on the discriminator's weights (wgan).", 0.01, above=0)
    discriminator_steps: int = setting(
        "Discriminator steps per generator step.",
        at_least=1,
        shown_default="5 for wgan-gp and wgan, else 1",
        old_name="critic_steps",
    )
    discriminator_bursts: bool = setting(
        "100 discriminator steps in each of the first 25 iterations and in every 500th.",
        False,
        old_name="critic_bursts",
    )
    fresh_batches: bool = setting(
        "New images and latents for every step, or one batch of each per iteration.", True
    )
    augment: str = setting(
        "For small sets: transforms of real and generated images before the discriminator sees them: "
        "translate (shifts of up to an eighth of a side) or translate:PIXELS, hflip, vflip.",
        NO_AUGMENTATION,
        separator="+",
    )

    def __post_init__(self) -> None:
        """Check every value."""
        SettingsGroup.__post_init__(self)
        parse_augment(self.augment)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizationConfig(SettingsGroup):
    """How long to train, and the optimizers."""

    epochs: int = setting(
        "Epochs of floor(images / batch size) iterations. More of them extend a run.", 20, at_least=1, below=10**7
    )
    batch_size: int = setting("Images per batch; batch normalization needs at least 2.", 64, at_least=2)
    shards: int = setting(
        "Parts of a batch, each with batch normalization and noise of its own, which as many processes can share: "
        "a power of two.",
        1,
        at_least=1,
    )
    training_split: Literal["train", "all"] = setting(
        "Train on the train split, or on all images, which leaves none to measure with.", "train"
    )
    learning_rate: float = setting("Learning rate of both networks.", 1e-4, above=0)
    discriminator_learning_rate: float = setting(
        "Learning rate of the discriminator.", above=0, shown_default="that of both; 2e-3 for mlp"
    )
    learning_rate_decay: Literal["none", "linear", "cosine"] = setting(
        "Decay of the learning rate to 0 after the last epoch: linear, cosine or none. A run with decay "
        "cannot be extended by more epochs.",
        "none",
    )
    ema_decay: float = setting(
        "Decay of the exponential moving average (EMA) of the generator, which is then sampled and "
        "exported; 0: no EMA.",
        0.0,
        at_least=0,
        below=1,
        old_name="average_decay",
    )
    optimizer: Literal["adam", "rmsprop"] = setting(
        "adam or rmsprop.", shown_default="rmsprop for wgan, else adam"
    )
    adam_beta1: float = setting("Adam's decay of the mean gradient.", 0.5, at_least=0, below=1)
    adam_beta2: float = setting("Adam's decay of the mean squared gradient.", 0.9, at_least=0, below=1)
    optimizer_form: Literal["torch", "tensorflow"] = setting(
        "torch, or tensorflow: epsilon, and RMSProp's start (1) and decay (0.9; torch: 0 and 0.99), as in "
        "TensorFlow 1.",
        "torch",
    )

    def __post_init__(self) -> None:
        """Check every value, and that shards divide a batch into parts that batch normalization can take."""
        SettingsGroup.__post_init__(self)
        powers = [2**power for power in range(self.batch_size.bit_length() - 1)]  # a shard has two images or more
        fitting = [count for count in powers if self.batch_size % count == 0]
        if self.shards not in fitting:
            raise ConfigError(
                f"shards is {self.shards}, but a batch of {self.batch_size} can be in "
                f"{', '.join(map(str, fitting))}; choose one of these, or another batch-size"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(SettingsGroup):
    """What does not belong to the method: the seed, and where to train."""

    seed: int = setting(
        "Decides the initial weights, the order of the data and all noise.", 0, at_least=0, below=2**63
    )
    device: str = setting("auto (a GPU if there is one), cpu, cuda, cuda:1, mps, ...", "auto")
    capture: bool = setting("Record an iteration once and replay it: on a GPU, a CUDA graph.", False)
    evaluate_every: int | None = setting(
        "Measure the run as `bgan evaluate` does after each so many epochs, for its log and the trackers.",
        None,
        at_least=1,
        shown_default="never",
    )
    """Epochs; None: never."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """All settings of a training run, resolved: made by `resolve`, which fills in what was not given."""

    preset: str | None
    """The preset that the settings began from, for the record; None: none."""
    data: DatasetSpec
    networks: NetworkConfig
    neurons: NeuronConfig
    inner: InnerConfig
    objective: ObjectiveConfig
    optimization: OptimizationConfig
    run: RunConfig

    def __post_init__(self) -> None:
        """Check what concerns several groups."""
        is_named = self.data.path is None and self.data.digest is None  # else it was given from Python
        if is_named and self.data.dataset not in DATASETS:
            raise ConfigError(f"dataset is {self.data.dataset!r}; choose one of {', '.join(DATASETS)}")
        held_out = ("validation_images", *HELD_OUT_FILES)
        for name in held_out if self.optimization.training_split == "all" else ():
            if getattr(self.data, name):
                raise ConfigError(f"training-split all trains on every image; leave out {option(name)}")
        reason = self.refusal(self.neurons.estimator)
        if reason is not None:
            raise ConfigError(f"the estimator {self.neurons.estimator} {reason}")
        self._check_inner()
        if self.networks.refine is not None:
            self._check_refine()

    def _check_refine(self) -> None:
        """Check that a refiner has binary neurons, and no others within."""
        if "real" in (self.neurons.neuron, self.neurons.training_neuron):
            raise ConfigError("a refiner has binary neurons, not real ones; choose --neuron dbn or --neuron sbn")
        if self.inner.neuron is not None:
            what = "gates" if self.inner.gates is not None else "hidden-neuron"
            raise ConfigError(f"refine and {what} do not go together; choose one of --refine, --{what}")

    def _check_inner(self) -> None:
        """Check the neurons within the generator against the network that has them."""
        if self.inner.neuron is None or self.inner.estimator is None:
            return
        what = "--gates" if self.inner.gates is not None else "--hidden-neuron"
        if self.networks.network not in NETWORKS:
            raise ConfigError(
                f"the network {self.networks.network} has no parts that bgan knows; leave out {what}, or choose "
                f"one of {', '.join(NETWORKS)}"
            )
        if self.inner.gate_by == "labels" and not self.networks.conditional:
            raise ConfigError("gate-by is labels, but conditional is off; add --conditional, or --gate-by latents")
        reason = self.refusal(self.inner.estimator, inner=True)
        if reason is not None:
            raise ConfigError(f"the estimator {self.inner.estimator} {reason}")

    def refusal(self, estimator: str, *, inner: bool = False) -> str | None:
        """Why the estimator cannot be used with these settings, as words after its name; None where it can.

        `inner`: for the neurons within the generator, not for its output.
        """
        prefix = "" if not inner else "gate-" if self.inner.gates is not None else "hidden-"
        return refusal(
            estimator,
            neuron=(inner and self.inner.neuron) or self.neurons.training_neuron,
            objective=self.objective.objective,
            discriminator_norm=self.networks.discriminator_norm,
            discriminator=self.networks.discriminator,
            prefix=prefix,
        )

    @classmethod
    def resolve(
        cls, *, preset: str | None = None, image_options: ImageOptions | None = None, **given: Any
    ) -> TrainingConfig:
        """The configuration of these settings by name; None, as leaving one out: what follows from the rest.

        Raises ConfigError for an unknown name, a value that is out of range, or settings that do not go together.
        """
        unknown = sorted(given.keys() - SETTINGS.keys())
        if unknown:
            raise ConfigError(f"unknown settings {', '.join(unknown)}; were they written by another version?")
        for name, value in given.items():
            if value is not None:
                SETTINGS[name].check(value)
        values = with_followed(given)
        groups = {
            attribute: group(**{field.attribute: values[field.name] for field in fields_of(group)})
            for attribute, group in GROUPS.items()
        }
        if image_options is not None:
            groups["data"] = dataclasses.replace(groups["data"], options=image_options)
        return cls(preset=preset, **groups)

    def replace(self, **changes: Any) -> TrainingConfig:
        """The same settings but for these, by name. Raises ConfigError as `resolve` does."""
        own = {"preset": self.preset, "image_options": self.data.options, **self.settings()}
        return TrainingConfig.resolve(**own | changes)

    def settings(self) -> dict[str, Any]:
        """All settings by name, but for the preset and the options of reading images."""
        return {
            field.name: getattr(getattr(self, attribute), field.attribute)
            for attribute, group in GROUPS.items()
            for field in fields_of(group)
        }

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, ready for JSON."""
        return {"preset": self.preset, **self.settings(), "image_options": self.data.options.to_dict()}

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> TrainingConfig:
        """The settings that `to_dict` gave, today or under older names. Raises ConfigError on an unknown name."""
        settings = {RENAMED_SETTINGS.get(name, name): value for name, value in settings.items()}
        options = ImageOptions(**settings.pop("image_options", {}))
        return cls.resolve(**settings, image_options=options)


GROUPS: dict[str, Any] = {
    "data": DatasetSpec,
    "networks": NetworkConfig,
    "neurons": NeuronConfig,
    "inner": InnerConfig,
    "objective": ObjectiveConfig,
    "optimization": OptimizationConfig,
    "run": RunConfig,
}
"""The groups of settings by their attribute of `TrainingConfig`."""
SETTINGS: dict[str, Field] = {field.name: field for group in GROUPS.values() for field in fields_of(group)}
"""Every setting of a training by name, but for those of reading images."""
RENAMED_SETTINGS = {field.setting.old_name: name for name, field in SETTINGS.items() if field.setting.old_name}
"""Names that an older version wrote, and what they are called today."""
REFINED_SETTINGS = ("network", "latent_size", "width", "generator_norm", "conditional")
"""Settings that a run which refines another has from it."""
# Settings that say how long or where to train, not what is computed: a run may be resumed under other ones.
# With learning-rate decay the number of epochs decides every step, see `differences`.
_RESUMABLE = frozenset({"epochs", "device", "capture", "evaluate_every", "data_dir", "data"})


def differences(old: TrainingConfig, new: TrainingConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that change what is computed and differ, by name: (old value, new value)."""
    before, after = (
        {"preset": config.preset, **config.settings(), **config.data.options.to_dict()} for config in (old, new)
    )
    resumable = set(_RESUMABLE)
    if "none" not in (old.optimization.learning_rate_decay, new.optimization.learning_rate_decay):
        resumable -= {"epochs"}
    if old.data.path is not None and new.data.path is not None:
        resumable |= {"dataset"}  # the name of their file, which may have been moved
    # Where these lie decides nothing, but whether there are any does.
    resumable |= {name for name in HELD_OUT_FILES if before[name] and after[name]}
    return {
        name: (before[name], after[name])
        for name in before
        if name not in resumable and before[name] != after[name]
    }


def with_followed(given: dict[str, Any]) -> dict[str, Any]:
    """The value of every setting where these are given, None being as good as left out; nothing is checked."""
    defaults = {
        name: field.default for name, field in SETTINGS.items() if field.default is not dataclasses.MISSING
    }
    values = defaults | {name: value for name, value in given.items() if value is not None}
    objective, estimator = values["objective"], estimator_entry(values["estimator"])
    following = {
        "conditional": values["clusters"] is not None,
        "training_neuron": values["neuron"],
        "discriminator": _of(_DISCRIMINATOR, values["network"]),
        "optimizer": _of(_OPTIMIZER, objective),
        "discriminator_steps": _of(_DISCRIMINATOR_STEPS, objective),
        "penalty_weight": _of(_PENALTY_WEIGHT, objective),
        "discriminator_learning_rate": values["learning_rate"],
        "estimator_samples": estimator.samples,
        "estimator_temperature": estimator.temperature,
        "width": float(values.get("gates") or 1) if values["network"] != "mlp" else 1.0,
        **inner_following(values),
    }
    return following | values


def _of(followed: tuple[dict[str, Any], Any], name: str) -> Any:
    values, usual = followed
    return values.get(name, usual)


def _without_meaning(name: str, estimator: str) -> ConfigError:
    return ConfigError(f"{option(name)} has no meaning for {estimator}; leave it out")
