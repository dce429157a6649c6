"""The paper's four experiments (Dong and Yang 2018, section 4) as lists of models to train."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...common.errors import ConfigError
from ...config.command import default_name
from ...config.presets import preset_values
from ...config.training import TrainingConfig

PAPER_EPOCHS = 20
COMPARED_PRESETS = ("published", "paper")
# Batch normalization in the discriminator, as each preset understands it.
_DISCRIMINATOR_NORM = {"paper": "batch", "published": "affine"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentModel:
    """One model of an experiment."""

    neuron: str
    network: str = "mlp"
    objective: str = "wgan-gp"
    normalized: bool = False
    """Whether there is batch normalization in the discriminator."""

    @property
    def neuron_title(self) -> str:
        """What the reports call its neurons."""
        return "real-valued" if self.neuron == "real" else self.neuron.upper()

    @property
    def title(self) -> str:
        """What the reports call it."""
        norm = " with BN in D" if self.normalized else ""
        return f"{self.network.upper()}, {self.neuron_title}, {self.objective.upper()}{norm}"

    @property
    def binarizations(self) -> tuple[str | None, ...]:
        """How its outputs are made binary: the real-valued ones are measured both ways."""
        return ("threshold", "bernoulli") if self.neuron == "real" else (None,)

    def config(self, preset: str, **settings: Any) -> TrainingConfig:
        """The settings that train it, of which `settings` override the preset's."""
        values = preset_values(preset, neuron=self.neuron, network=self.network)
        if self.normalized:
            values["discriminator_norm"] = _DISCRIMINATOR_NORM[preset]
        own = {"neuron": self.neuron, "network": self.network, "objective": self.objective}
        return TrainingConfig.resolve(**{**values, **own, **settings})


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One of the paper's experiments."""

    title: str
    question: str
    models: tuple[ExperimentModel, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPlan:
    """How one experiment is run."""

    presets: Sequence[str]
    epochs: int
    seeds: int
    overrides: dict[str, Any]
    """Settings in which it differs from its presets."""


BINARY_MODELS = (ExperimentModel(neuron="dbn"), ExperimentModel(neuron="sbn"))
REAL_MODEL = ExperimentModel(neuron="real")
OBJECTIVE_ROWS: dict[str, dict[str, Any]] = {
    f"{objective.upper()}{', BN in D' if bn else ''}": {"objective": objective, "normalized": bn}
    for objective in ("gan", "wgan", "wgan-gp")
    for bn in (False, True)
}
"""The rows of the paper's Figure 8: in what their models differ."""

EXPERIMENTS = {
    "I": Experiment(
        title="Experiment I: deterministic against stochastic binary neurons",
        question="How do DBNs and SBNs differ in quality, and in what they output before binarization?",
        models=BINARY_MODELS,
    ),
    "II": Experiment(
        title="Experiment II: the real-valued model, binarized after training",
        question="What is lost when sigmoid outputs are binarized only at test time?",
        models=(REAL_MODEL, *BINARY_MODELS),
    ),
    "III": Experiment(
        title="Experiment III: GAN, WGAN and WGAN-GP, with and without batch normalization in D",
        question="Which objectives train BinaryGAN?",
        models=tuple(replace(model, **row) for row in OBJECTIVE_ROWS.values() for model in BINARY_MODELS),
    ),
    "IV": Experiment(
        title="Experiment IV: multilayer perceptrons against convolutional networks",
        question="Does a CNN with fewer parameters make fewer artifacts?",
        models=(*BINARY_MODELS, *(replace(model, network="cnn") for model in BINARY_MODELS)),
        note="Trainable parameters of both networks under `published`, at 28x28: MLP 1,472,817, CNN 530,212. The "
        "paper and its slides print them swapped.",
    ),
}


def check_experiments(names: Sequence[str]) -> list[str]:
    """The experiments of those names, in their order, or all. Raises ConfigError for an unknown one."""
    return chosen("experiment", [name.upper() for name in names], EXPERIMENTS)


def chosen(what: str, names: Sequence[str], known: Collection[str]) -> list[str]:
    """Those of the names known, in their order, or all. Raises ConfigError for an unknown one."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"{what} is {unknown[0]!r}; choose from {', '.join(known)}")
    return [name for name in known if not names or name in names]


def run_name(config: TrainingConfig) -> str:
    """The name of a run within a reproduction: runs of different lengths lie side by side."""
    return f"{default_name(config)}-{config.optimization.epochs}ep"
