"""Presets: named settings of `bgan train`, and what each changes and why.

Numbers D1 to D31 are those of docs/presets.md, where the published code and the paper part ways.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..common.errors import ConfigError
from .images import ImageOptions
from .training import SETTINGS, TrainingConfig


class Value(NamedTuple):
    """One setting of a preset."""

    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """What a preset sets otherwise for some generators; None: for all of them."""

    neuron: str | None = None
    network: str | None = None
    settings: dict[str, Value]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Named settings of a training run; options on the command line override them."""

    summary: str
    settings: dict[str, Value]
    """By the name of the setting in `TrainingConfig`."""
    is_conditional: bool = False
    """Whether it trains on the classes of a set that has enough images of each."""
    variants: tuple[Variant, ...] = ()
    """What differs for some generators; a later variant overrides an earlier one."""

    def values(self, *, neuron: str, network: str | None) -> dict[str, Any]:
        """The values by setting, for that kind of generator; None: the network of the preset."""
        if network is None:
            network = self.settings["network"].value if "network" in self.settings else SETTINGS["network"].default
        settings = dict(self.settings)
        for variant in self.variants:
            if variant.neuron in (None, neuron) and variant.network in (None, network):
                settings |= variant.settings
        return {name: setting.value for name, setting in settings.items()}

    def rows(self) -> Iterator[tuple[str, str, Value]]:
        """All settings: the generators that it is for ("": all), its name, and the setting."""
        yield from (("", name, setting) for name, setting in self.settings.items())
        for variant in self.variants:
            generators = " ".join(filter(None, (variant.network, variant.neuron)))
            yield from ((generators, name, setting) for name, setting in variant.settings.items())


_REINMAX = Value("reinmax", "a tenth of the isolated pixels of straight-through")

PRESETS = {
    "paper": Preset(
        summary="what the paper says, with the errors of its code corrected",
        settings={
            "slope_rate": Value(1.1, "slope annealing on, which never happened in the published code"),
            "generator_norm": Value("batch", "real batch normalization, in hidden layers only"),
            "fresh_batches": Value(True, "new images and latents for every step"),
            "discriminator_bursts": Value(False, "5 discriminator steps an iteration (1 for gan), no bursts"),
            "training_split": Value("train", "the test images are held out, to measure with"),
            "initialization": Value("he", "logits of the order of 1 from the start"),
            "optimizer_form": Value("torch", "RMSProp and Adam in their usual form"),
            "epochs": Value(20, "from the slides; the paper names no number"),
        },
    ),
    "published": Preset(
        summary="what the published code computes, D1 to D18",
        settings={
            "slope_rate": Value(1.0, "D1: the slope is 1 throughout; the annealed one is never used"),
            "generator_norm": Value(
                "affine", "D2, D3: batch norm is gamma x / sqrt(1.001) + beta, after the output too"
            ),
            "discriminator_steps": Value(5, "D5: for every objective, gan too"),
            "discriminator_bursts": Value(
                True, "D5: 100 discriminator steps in the first 25 iterations and in every 500th"
            ),
            "fresh_batches": Value(False, "D6: one batch of images and latents for all steps of an iteration"),
            "training_split": Value("all", "D7: training and test images merged, none held out"),
            "initialization": Value("truncated-normal", "D9: N(0, 0.02^2) within two sigma, zero biases"),
            "optimizer_form": Value(
                "tensorflow", "D16, D17: RMSProp starts at 1 with epsilon in the root; TF1's Adam"
            ),
            "epochs": Value(20, "D29: from config.py and the slides"),
        },
    ),
    "modern": Preset(
        summary="better images in less time, kept by ablation (docs/recipe.md); of the data set's classes",
        is_conditional=True,
        settings={
            "network": Value("doubling-cnn", "7, 14, 28: cheaper than the MLP, and smoother strokes"),
            "discriminator": Value(
                "mlp+strided-cnn", "one sees the whole, one the details; each has its own loss"
            ),
            "objective": Value("relativistic", "real and fake in pairs, one discriminator step, R1 and R2"),
            "penalty_weight": Value(2.0, "gamma of R1 and R2"),
            "learning_rate": Value(2e-3, "20 times the paper's: stable with R1 and R2, smoothed by the EMA"),
            "learning_rate_decay": Value(
                "cosine", "to 0 at the end; a longer run is another run, with more --epochs"
            ),
            "adam_beta1": Value(0.0, "no momentum, as usual with R1 and R2"),
            "adam_beta2": Value(0.99, "a longer memory of squared gradients"),
            "ema_decay": Value(0.9999, "the EMA generator is smoother than any of its steps"),
            "initialization": Value(
                "truncated-normal", "small weights: no noise that training has to remove first"
            ),
            "output_bias": Value("mean", "pixels that are never on are off from the start"),
            "slope_rate": Value(1.0, "no slope annealing"),
        },
        variants=(
            Variant(
                neuron="dbn",
                settings={
                    "training_neuron": Value(
                        "sbn", "trained as stochastic, whose gradient is better; sampled as deterministic"
                    ),
                    "estimator": _REINMAX,
                },
            ),
            Variant(neuron="sbn", settings={"estimator": _REINMAX}),
            Variant(
                network="mlp",
                settings={
                    "discriminator": Value("mlp", "the one that an MLP learns from best"),
                    "learning_rate": Value(4e-3, "of the generator; an MLP takes twice the rate"),
                    "discriminator_learning_rate": Value(2e-3, "as with convolutions"),
                    "learning_rate_decay": Value("none", "the EMA over a high rate is smoother"),
                    "training_neuron": Value(None, "trained as it is sampled"),
                    "estimator": Value(
                        "sigmoid-adjusted", "an MLP discriminator's loss is nearly linear in each bit"
                    ),
                },
            ),
        ),
    ),
}


def default_preset(objective: str | None) -> str:
    """The preset of `bgan train` where none is named: the paper's settings for the paper's objectives."""
    return "modern" if objective in (None, PRESETS["modern"].settings["objective"].value) else "paper"


def configure(
    preset: str | None = None, *, image_options: ImageOptions | None = None, **settings: Any
) -> TrainingConfig:
    """The settings of `bgan train` with these options by name; they override the preset, as there "modern".

    Raises ConfigError for a name or a value that is invalid, or settings that do not go together.
    """
    preset = preset or default_preset(settings.get("objective"))
    kind = {"neuron": settings.get("neuron", "dbn"), "network": settings.get("network")}
    return TrainingConfig.resolve(**preset_values(preset, **kind) | settings, image_options=image_options)


def shown_default(setting: str) -> str | None:
    """A setting's default in words that name the presets; None: both have the setting's own default."""
    modern, paper = PRESETS["modern"].settings.get(setting), PRESETS["paper"].settings.get(setting)
    if modern is None:
        return None
    usual = SETTINGS[setting].default if paper is None else paper.value
    return f"{modern.value}; paper: {usual}"


def preset_values(name: str | None, *, neuron: str = "dbn", network: str | None = None) -> dict[str, Any]:
    """The settings of a preset for a kind of generator, none for None; network None: the preset's own.

    Raises ConfigError for an unknown name.
    """
    if name is None:
        return {}
    if name not in PRESETS:
        raise ConfigError(f"preset is {name!r}; choose one of {', '.join(PRESETS)} (see `bgan presets`)")
    return {"preset": name, **PRESETS[name].values(neuron=neuron, network=network)}
