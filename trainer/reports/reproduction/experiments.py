"""The paper's four experiments (Dong and Yang 2018, section 4) as lists of models to train."""

from __future__ import annotations

from dataclasses import dataclass

from ...common.errors import ConfigError
from ...config.presets import preset_values
from ...config.run_name import default_name
from ...config.training import TrainingConfig

PAPER_EPOCHS = 20
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
    def title(self) -> str:
        """What the reports call it."""
        neuron = "real-valued" if self.neuron == "real" else self.neuron.upper()
        norm = " with BN in D" if self.normalized else ""
        return f"{self.network.upper()}, {neuron}, {self.objective.upper()}{norm}"

    def config(self, *, preset: str, epochs: int, seed: int, dataset: str, data_dir: str | None) -> TrainingConfig:
        """The settings that train it."""
        settings = preset_values(preset, neuron=self.neuron, network=self.network)
        if self.normalized:
            settings["discriminator_norm"] = _DISCRIMINATOR_NORM[preset]
        return TrainingConfig.resolve(
            **{
                **settings,
                "neuron": self.neuron,
                "network": self.network,
                "objective": self.objective,
                "epochs": epochs,
                "seed": seed,
                "dataset": dataset,
                "data_dir": data_dir,
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One of the paper's experiments."""

    title: str
    question: str
    """What it asks, in a sentence."""
    models: tuple[ExperimentModel, ...]


OBJECTIVE_ROWS = tuple((objective, bn) for objective in ("gan", "wgan", "wgan-gp") for bn in (False, True))
"""The rows of the paper's Figure 8."""

EXPERIMENTS = {
    "I": Experiment(
        title="Experiment I: deterministic against stochastic binary neurons",
        question="How do DBNs and SBNs differ in quality, and in what they output before binarization?",
        models=(ExperimentModel(neuron="dbn"), ExperimentModel(neuron="sbn")),
    ),
    "II": Experiment(
        title="Experiment II: the real-valued model, binarized after training",
        question="What is lost when sigmoid outputs are binarized only at test time?",
        models=(ExperimentModel(neuron="real"), ExperimentModel(neuron="dbn"), ExperimentModel(neuron="sbn")),
    ),
    "III": Experiment(
        title="Experiment III: GAN, WGAN and WGAN-GP, with and without batch normalization in D",
        question="Which objectives train BinaryGAN?",
        models=tuple(
            ExperimentModel(neuron=neuron, objective=objective, normalized=bn)
            for objective, bn in OBJECTIVE_ROWS
            for neuron in ("dbn", "sbn")
        ),
    ),
    "IV": Experiment(
        title="Experiment IV: multilayer perceptrons against convolutional networks",
        question="Does a CNN with fewer parameters make fewer artifacts?",
        models=tuple(
            ExperimentModel(neuron=neuron, network=network)
            for network in ("mlp", "cnn")
            for neuron in ("dbn", "sbn")
        ),
    ),
}


def check_experiments(names: list[str]) -> list[str]:
    """The experiments of those names, all of them for none. Raises ConfigError on one that is not there."""
    unknown = [name for name in names if name.upper() not in EXPERIMENTS]
    if unknown:
        raise ConfigError(f"experiment is {unknown[0]!r}; choose from {', '.join(EXPERIMENTS)}")
    return [name for name in EXPERIMENTS if not names or name in {given.upper() for given in names}]


def run_name(config: TrainingConfig) -> str:
    """The name of a run within a reproduction: runs of different lengths lie side by side."""
    return f"{default_name(config)}-{config.optimization.epochs}ep"
