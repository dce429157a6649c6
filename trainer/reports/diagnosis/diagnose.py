"""How far gradient estimators are from the true gradient of a trained generator and discriminator.

Gradients are by the logits of an image, of that image's own loss. Where the loss compares an image with a real
one, every latent keeps its own real image throughout.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...common.entry_points import ESTIMATORS as ESTIMATOR_GROUP
from ...common.entry_points import registered
from ...common.errors import ConfigError
from ...common.rng import CPU
from ...config.estimators import ESTIMATORS
from ...config.setting import SettingsGroup, setting
from ...data.dataset import BinaryDataset
from ...training.objectives import configured_objective
from ...training.run import Run
from .estimates import EstimatorDiagnosis, measure_estimators, square
from .flips import flip_gradients
from .subject import Subject, load_subject, with_estimator

_BASELINE = "sigmoid-adjusted"
_REFERENCES = {
    "sbn": "the true gradient of the expected loss, by flips of all pixels",
    "dbn": "the difference that each pixel's flip makes, times slope p (1 - p): there is no true gradient",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnosisOptions(SettingsGroup):
    """How much to draw. More images say more about the run, more draws and backgrounds say it more exactly."""

    images: int = setting("Latents to measure at.", 8, at_least=1)
    draws: int = setting("Estimates of each estimator; rounded up to tens.", 400, at_least=1)
    backgrounds: int = setting(
        "Images of each latent whose pixels are all flipped for the truth; rounded up to tens.", 40, at_least=1
    )
    seed: int = setting(
        "Decides the latents, the real images that they are paired with, and all noise.", 0, at_least=0
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """All that was measured of one run."""

    run: str
    step: int
    network: str
    objective: str
    neuron: str
    slope: float
    batch_size: int
    plan: DiagnosisOptions
    reference: str
    """What the estimates are compared with, in words."""
    gradient_norm: float
    """The root mean square of |g*| over the images."""
    estimators: list[EstimatorDiagnosis]
    refused: dict[str, str]
    """Estimators that cannot be used in this run, with the reason."""

    def to_dict(self) -> dict[str, Any]:
        """All of it by name, ready for JSON: the bias beside its square, None for NaN."""
        content = dataclasses.asdict(self)
        for item, written in zip(self.estimators, content["estimators"], strict=True):
            names = ("bias", "bias_error", "is_biased")
            figures = written["accuracy"] | {name: getattr(item.accuracy, name) for name in names}
            written["accuracy"] = {name: None if math.isnan(value) else value for name, value in figures.items()}
        return content


def diagnose(
    run: Run,
    plan: DiagnosisOptions,
    *,
    estimators: Sequence[str] = (),
    neuron: str | None = None,
    dataset: BinaryDataset | None = None,
    data_dir: str | None = None,
    device: torch.device = CPU,
    report: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Diagnosis:
    """Measure estimators, or all that can be used, at the newest checkpoint of a run.

    `neuron` treats the logits as those of "dbn" or "sbn" neurons, whatever the run was trained with. `data_dir` is
    where the run's data set lies now, and `dataset` stands in its place; only conditional runs and losses that
    compare pairs need it.
    Raises ConfigError for estimators that are unknown or cannot be used, and where the true gradient is 0;
    otherwise what `load_subject` does.
    """
    config = run.config()
    if neuron is not None and neuron != config.neurons.training_neuron:
        config = with_estimator(config, _BASELINE, neuron)
    if data_dir is not None:
        config = config.replace(data_dir=data_dir)
    subject = load_subject(
        run,
        config,
        images=plan.images,
        seed=plan.seed,
        dataset=dataset,
        device=device,
        report=report,
        warn=warn,
    )
    names, refused = _usable(estimators, subject)
    truth = flip_gradients(subject, plan.backgrounds, report)
    if square(truth) <= 0:
        raise ConfigError("the true gradient cannot be told from 0; give more --backgrounds, or more --images")
    reference = _REFERENCES[subject.neuron]
    if configured_objective(config.objective.objective, run.given.objective).compares_pairs:
        reference += f"; every image is paired with a real one of {config.data.dataset}"
    return Diagnosis(
        run=run.name,
        step=subject.step,
        network=config.networks.network,
        objective=config.objective.objective,
        neuron=subject.neuron,
        slope=subject.slope,
        batch_size=config.optimization.batch_size,
        plan=plan,
        reference=reference,
        gradient_norm=math.sqrt(square(truth) / plan.images),
        estimators=measure_estimators(subject, names, plan.draws, truth, report),
        refused=refused,
    )


def _usable(asked: Sequence[str], subject: Subject) -> tuple[list[str], dict[str, str]]:
    """The estimators to measure, and the others with the reason. Raises ConfigError if one was asked for."""
    known = dict.fromkeys((*ESTIMATORS, *registered(ESTIMATOR_GROUP)))
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise ConfigError(f"estimator is {unknown[0]!r}; choose one of {', '.join(known)}")
    own = (
        subject.config.neurons.estimator
    )  # one of another package is measured where it is asked for, or the run's
    reasons = {name: subject.config.refusal(name) for name in asked or dict.fromkeys((*ESTIMATORS, own))}
    refused = {name: reason for name, reason in reasons.items() if reason is not None}
    if asked and refused:
        name, reason = next(iter(refused.items()))
        raise ConfigError(f"the estimator {name} {reason}")
    return [_BASELINE, *(name for name in reasons if name not in {_BASELINE, *refused})], refused
