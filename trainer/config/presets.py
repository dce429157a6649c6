"""Presets: named settings of `bgan train`, and what each changes and why.

Numbers D1 to D31 are those of docs/presets.md, where the published code and the paper part ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..common.errors import ConfigError
from .training import SETTINGS


@dataclass(frozen=True, kw_only=True, slots=True)
class PresetValue:
    """One setting of a preset."""

    value: Any
    """What the preset sets."""
    reason: str
    """What it does, in a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """What a preset sets otherwise for some generators; None: for all of them."""

    neuron: str | None = None
    network: str | None = None
    settings: dict[str, PresetValue]

    def concerns(self, *, neuron: str, network: str) -> bool:
        """Whether it is for that kind of generator."""
        return self.neuron in (None, neuron) and self.network in (None, network)

    @property
    def title(self) -> str:
        """The generators that it is for."""
        return " ".join(name for name in (self.network, self.neuron) if name is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Named settings of a training run; options on the command line override them."""

    summary: str
    """What the preset is for, in a line."""
    settings: dict[str, PresetValue]
    """By the name of the setting in `TrainingConfig`."""
    variants: tuple[Variant, ...] = ()
    """What differs for some generators; a later variant overrides an earlier one."""

    def values(self, *, neuron: str, network: str | None) -> dict[str, Any]:
        """The values by setting, for that kind of generator; None: the network of the preset."""
        if network is None:
            network = self.settings["network"].value if "network" in self.settings else SETTINGS["network"].default
        settings = dict(self.settings)
        for variant in self.variants:
            if variant.concerns(neuron=neuron, network=network):
                settings |= variant.settings
        return {name: setting.value for name, setting in settings.items()}

    def rows(self) -> Iterator[tuple[str, str, PresetValue]]:
        """All settings: the generators that it is for ("": all), its name, and the setting."""
        yield from (("", name, setting) for name, setting in self.settings.items())
        for variant in self.variants:
            yield from ((variant.title, name, setting) for name, setting in variant.settings.items())


_REINMAX = PresetValue(value="reinmax", reason="a tenth of the isolated pixels of straight-through")

PRESETS = {
    "paper": Preset(
        summary="what the paper says, with the errors of its code corrected",
        settings={
            "slope_rate": PresetValue(
                value=1.1, reason="slope annealing on, which never happened in the published code"
            ),
            "generator_norm": PresetValue(value="batch", reason="real batch normalization, in hidden layers only"),
            "fresh_batches": PresetValue(value=True, reason="new images and latents for every step"),
            "discriminator_bursts": PresetValue(
                value=False, reason="5 discriminator steps an iteration (1 for gan), no bursts"
            ),
            "training_split": PresetValue(value="train", reason="the test images are held out, to measure with"),
            "initialization": PresetValue(value="he", reason="logits of the order of 1 from the start"),
            "optimizer_form": PresetValue(value="torch", reason="RMSProp and Adam in their usual form"),
            "epochs": PresetValue(value=20, reason="from the slides; the paper names no number"),
        },
    ),
    "published": Preset(
        summary="what the published code computes, D1 to D18",
        settings={
            "slope_rate": PresetValue(
                value=1.0, reason="D1: the slope is 1 throughout; the annealed one is never used"
            ),
            "generator_norm": PresetValue(
                value="affine", reason="D2, D3: batch norm is gamma x / sqrt(1.001) + beta, after the output too"
            ),
            "discriminator_steps": PresetValue(value=5, reason="D5: for every objective, gan too"),
            "discriminator_bursts": PresetValue(
                value=True, reason="D5: 100 discriminator steps in the first 25 iterations and in every 500th"
            ),
            "fresh_batches": PresetValue(
                value=False, reason="D6: one batch of images and latents for all steps of an iteration"
            ),
            "training_split": PresetValue(
                value="all", reason="D7: training and test images merged, none held out"
            ),
            "initialization": PresetValue(
                value="truncated-normal", reason="D9: N(0, 0.02^2) within two sigma, zero biases"
            ),
            "optimizer_form": PresetValue(
                value="tensorflow", reason="D16, D17: RMSProp starts at 1 with epsilon in the root; TF1's Adam"
            ),
            "epochs": PresetValue(value=20, reason="D29: from config.py and the slides"),
        },
    ),
    "modern": Preset(
        summary="better images in less time, kept by ablation (docs/recipe.md)",
        settings={
            "network": PresetValue(
                value="doubling-cnn", reason="7, 14, 28: cheaper than the MLP, and smoother strokes"
            ),
            "discriminator": PresetValue(
                value="mlp+strided-cnn", reason="one sees the whole, one the details; each has its own loss"
            ),
            "objective": PresetValue(
                value="relativistic", reason="real and fake in pairs, one discriminator step, R1 and R2"
            ),
            "penalty_weight": PresetValue(value=2.0, reason="gamma of R1 and R2"),
            "learning_rate": PresetValue(
                value=2e-3, reason="20 times the paper's: stable with R1 and R2, smoothed by the EMA"
            ),
            "learning_rate_decay": PresetValue(
                value="cosine", reason="to 0 at the end; a longer run is another run, with more --epochs"
            ),
            "adam_beta1": PresetValue(value=0.0, reason="no momentum, as usual with R1 and R2"),
            "adam_beta2": PresetValue(value=0.99, reason="a longer memory of squared gradients"),
            "ema_decay": PresetValue(value=0.9999, reason="the EMA generator is smoother than any of its steps"),
            "initialization": PresetValue(
                value="truncated-normal", reason="small weights: no noise that training has to remove first"
            ),
            "output_bias": PresetValue(value="mean", reason="pixels that are never on are off from the start"),
            "slope_rate": PresetValue(value=1.0, reason="no slope annealing"),
        },
        variants=(
            Variant(
                neuron="dbn",
                settings={
                    "training_neuron": PresetValue(
                        value="sbn",
                        reason="trained as stochastic, whose gradient is better; sampled as deterministic",
                    ),
                    "estimator": _REINMAX,
                },
            ),
            Variant(neuron="sbn", settings={"estimator": _REINMAX}),
            Variant(
                network="mlp",
                settings={
                    "discriminator": PresetValue(value="mlp", reason="the one that an MLP learns from best"),
                    "learning_rate": PresetValue(
                        value=4e-3, reason="of the generator; an MLP takes twice the rate"
                    ),
                    "discriminator_learning_rate": PresetValue(value=2e-3, reason="as with convolutions"),
                    "learning_rate_decay": PresetValue(
                        value="none", reason="the EMA over a high rate is smoother"
                    ),
                    "training_neuron": PresetValue(value=None, reason="trained as it is sampled"),
                    "estimator": PresetValue(
                        value="sigmoid-adjusted", reason="an MLP discriminator's loss is nearly linear in each bit"
                    ),
                },
            ),
        ),
    ),
}


def default_preset(objective: str | None) -> str:
    """The preset of `bgan train` where none is named: the paper's settings for the paper's objectives."""
    return "modern" if objective in (None, PRESETS["modern"].settings["objective"].value) else "paper"


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
