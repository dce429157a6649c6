"""How far gradient estimators are from the true gradient of a trained generator and discriminator.

Gradients are by the logits of the neurons of an image, of that image's own loss: of its pixels, or of the gates or
hidden neurons that it is made by. Where the loss compares an image with a real one, every latent keeps its own
real image throughout; where it depends on noise of other neurons, its own draw of that.
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
from .flips import is_enumerated, true_gradients
from .subject import Subject, default_neurons, estimator_of, load_subject, neuron_of, with_estimator

_BASELINE = "sigmoid-adjusted"
_ONE = {"output": "pixel", "gates": "gate", "hidden": "hidden neuron"}


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnosisOptions(SettingsGroup):
    """How much to draw. More images say more about the run, more draws and backgrounds say it more exactly."""

    images: int = setting("Latents to measure at.", 8, at_least=1)
    draws: int = setting("Estimates of each estimator; rounded up to tens.", 400, at_least=1)
    backgrounds: int = setting(
        "Images of each latent whose pixels are all flipped for the truth; rounded up to tens. Up to 8 gates need "
        "none.",
        40,
        at_least=1,
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
    of: str
    """Whose gradients: "output", "gates" or "hidden"."""
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

    @property
    def neurons(self) -> str:
        """The neurons in words: their kind, and which they are unless they are those of the output."""
        return self.neuron if self.of == "output" else f"{self.neuron} {self.of}"

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
    of: str | None = None,
    estimators: Sequence[str] = (),
    neuron: str | None = None,
    dataset: BinaryDataset | None = None,
    data_dir: str | None = None,
    device: torch.device = CPU,
    report: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Diagnosis:
    """Measure estimators, or all that can be used, at the newest checkpoint of a run.

    `of` are the neurons: "output", "gates" or "hidden"; None: the inner ones of a run that has such. `neuron`
    treats their logits as those of "dbn" or "sbn" neurons, whatever the run was trained with. `data_dir` is where
    the run's data set lies now, and `dataset` stands in its place; only conditional runs and losses that compare
    pairs need it.
    Raises ConfigError for estimators that are unknown or cannot be used, and where the true gradient is 0;
    otherwise what `load_subject` does.
    """
    config = run.config()
    of = default_neurons(config) if of is None else of
    if neuron is not None and neuron != neuron_of(config, of):
        config = with_estimator(config, of, _BASELINE, neuron)
    if data_dir is not None:
        config = config.replace(data_dir=data_dir)
    subject = load_subject(
        run,
        config,
        of,
        images=plan.images,
        seed=plan.seed,
        dataset=dataset,
        device=device,
        report=report,
        warn=warn,
    )
    names, refused = _usable(estimators, subject)
    truth = true_gradients(subject, plan.backgrounds, report)
    if square(truth) <= 0:
        raise ConfigError("the true gradient cannot be told from 0; give more --backgrounds, or more --images")
    compares_pairs = configured_objective(config.objective.objective, run.given.objective).compares_pairs
    return Diagnosis(
        run=run.name,
        step=subject.step,
        network=config.networks.network,
        objective=config.objective.objective,
        of=of,
        neuron=subject.neuron,
        slope=subject.slope,
        batch_size=config.optimization.batch_size,
        plan=plan,
        reference=_reference(subject, compares_pairs=compares_pairs),
        gradient_norm=math.sqrt(square(truth) / plan.images),
        estimators=measure_estimators(subject, names, plan.draws, truth, report),
        refused=refused,
    )


def _reference(subject: Subject, *, compares_pairs: bool) -> str:
    """What estimates are compared with, in words."""
    count, one = subject.logits[0].numel(), _ONE[subject.of]
    of_all = f"all {one}s" if subject.places is None else f"{len(subject.places)} of {count:,} {one}s"
    if subject.neuron == "dbn":
        words = f"the difference that each {one}'s flip makes, times slope p (1 - p): there is no true gradient"
        words += "" if subject.places is None else f"; of {of_all}"
    elif is_enumerated(subject):
        words = f"the true gradient of the expected loss, by enumeration of all {2**count} patterns of {one}s"
    else:
        words = f"the true gradient of the expected loss, by flips of {of_all}"
    if subject.of != "output" and subject.config.neurons.training_neuron == "sbn":
        words += "; the noise of the output neurons is held"
    if compares_pairs:
        words += f"; every image is paired with a real one of {subject.config.data.dataset}"
    return words


def _usable(asked: Sequence[str], subject: Subject) -> tuple[list[str], dict[str, str]]:
    """The estimators to measure, and the others with the reason. Raises ConfigError if one was asked for."""
    known = dict.fromkeys((*ESTIMATORS, *registered(ESTIMATOR_GROUP)))
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise ConfigError(f"estimator is {unknown[0]!r}; choose one of {', '.join(known)}")
    # one of another package is measured where it is asked for, or the run's
    names = asked or dict.fromkeys((*ESTIMATORS, estimator_of(subject.config, subject.of)))
    reasons = {name: subject.config.refusal(name, inner=subject.of != "output") for name in names}
    refused = {name: reason for name, reason in reasons.items() if reason is not None}
    if asked and refused:
        name, reason = next(iter(refused.items()))
        raise ConfigError(f"the estimator {name} {reason}")
    return [_BASELINE, *(name for name in reasons if name not in {_BASELINE, *refused})], refused
