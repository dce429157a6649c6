"""How far gradient estimators are from the true gradient of a trained generator and discriminator.

Shapes: B images (of one latent each), N pixels an image, G groups of independent draws. Gradients are by the
logits of an image, of that image's own loss, [B, N]; their groups' means are [G, B, N]. Where the loss compares
an image with a real one, every latent has its own real image throughout.

The truth for stochastic neurons is a p_i (1 - p_i) E [f(b_i = 1) - f(b_i = 0)], all pixels i flipped in turn
on drawn images. Deterministic neurons have no gradient: their reference is the same with
the one image that they give, which is how far the loss moves when a neuron crosses its threshold, weighted as
the straight-through gradient is.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ...common.errors import ConfigError
from ...common.rng import derived_seed, random_stream
from ...common.tensor_files import tensors_under
from ...config.estimators import BINARY_NEURONS, ESTIMATORS, refusal
from ...config.training import TrainingConfig
from ...data.catalog import open_dataset
from ...training.checkpoint import trained_discriminators, trained_generator
from ...training.estimators.base import Estimator, draw_bits
from ...training.estimators.build import build_estimator
from ...training.losses import ImageLosses
from ...training.objectives import OBJECTIVES
from ...training.run import Run, trained_checkpoint
from .flips import flip_differences
from .gradient_error import GradientError, compare, square

GROUPS = 10
_WARM_UP_DRAWS = 30
_TIMED_DRAWS = 20  # where all draws are the same
BASELINE = "sigmoid-adjusted"


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnosisOptions:
    """How much to draw. More images say more about the run, more draws and backgrounds say it more exactly."""

    images: int = 8
    """Latents, and so images, to diagnose at."""
    draws: int = 400
    """Estimates of each estimator; rounded up to tens."""
    backgrounds: int = 40
    """Images of each latent whose pixels are all flipped for the truth; rounded up to tens."""
    seed: int = 0
    """Decides the latents, the real images that they are paired with, and all noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimatorDiagnosis:
    """What was measured of one estimator."""

    estimator: str
    accuracy: GradientError
    evaluations: float
    """Images that the discriminator judged, for one estimate at one image."""
    milliseconds: float
    """Median CPU time of one estimate, an image: what else runs on the machine does not count."""
    batch_error: float
    """`GradientError.batch_error` at the run's batch size."""


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

    def time_ratio(self, diagnosis: EstimatorDiagnosis) -> float:
        """The time of one estimate over that of the first estimator."""
        return diagnosis.milliseconds / self.estimators[0].milliseconds

    def to_dict(self) -> dict[str, Any]:
        """All of it by name, with the bias beside its square."""
        content = dataclasses.asdict(self)
        for item, written in zip(self.estimators, content["estimators"], strict=True):
            accuracy = item.accuracy
            written["accuracy"] |= {
                "bias": accuracy.bias,
                "bias_error": accuracy.bias_error,
                "is_biased": accuracy.is_biased,
            }
        return content


def diagnose(
    run: Run,
    plan: DiagnosisOptions,
    *,
    estimators: Sequence[str] = (),
    neuron: str | None = None,
    data_dir: str | None = None,
    report: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Diagnosis:
    """Measure estimators, or all that can be used, at the newest checkpoint of a run.

    `neuron` takes the generator's logits as those of other neurons than it was trained with. `data_dir` is
    where the run's data set lies, if not where it was trained on; only losses that compare an image with a
    real one need it. `report` hears what is being done, `warn` of damaged checkpoints.
    Images are judged as they are, without the augmentation of a run that has any. A generator of classes makes
    images of those of real ones.
    Raises ConfigError on estimators that are unknown or cannot be used, on runs with real neurons or with
    batch normalization in the discriminator, and where the true gradient is 0; RunError where there is no
    checkpoint, DataError where the data set is needed and cannot be had.
    """
    config = run.config()
    if neuron not in {None, config.neurons.training_neuron}:
        config = config.replace(
            training_neuron=neuron, estimator=BASELINE, estimator_samples=None, estimator_temperature=None
        )
    if data_dir is not None:
        config = config.replace(data_dir=data_dir)
    assert config.neurons.training_neuron is not None
    subject = _Subject(run, config, plan, report, warn)
    names, refused = _usable(estimators, config)
    truth = subject.reference(report)
    if square(truth) <= 0:
        raise ConfigError("the true gradient is not told from 0; give more --backgrounds, or more --images")
    measured = subject.measure(names, report)
    found = []
    for name, draws in zip(names, measured, strict=True):
        accuracy = compare(draws.groups, draws.variance, truth)
        found.append(
            EstimatorDiagnosis(
                estimator=name,
                accuracy=accuracy,
                evaluations=draws.evaluations,
                milliseconds=draws.milliseconds,
                batch_error=accuracy.batch_error(config.optimization.batch_size),
            )
        )
    return Diagnosis(
        run=run.name,
        step=subject.step,
        network=config.networks.network,
        objective=config.objective.objective,
        neuron=config.neurons.training_neuron,
        slope=subject.slope,
        batch_size=config.optimization.batch_size,
        plan=plan,
        reference=_reference(config),
        gradient_norm=math.sqrt(square(truth) / plan.images),
        estimators=found,
        refused=refused,
    )


_REFERENCES = {
    "sbn": "the true gradient of the expected loss, by flips of all pixels",
    "dbn": "the difference that each pixel's flip makes, times slope p (1 - p): there is no true gradient",
}


def _reference(config: TrainingConfig) -> str:
    assert config.neurons.training_neuron is not None
    is_paired = OBJECTIVES[config.objective.objective].compares_pairs
    pairs = f"; every image is paired with a real one of {config.data.dataset}" if is_paired else ""
    return _REFERENCES[config.neurons.training_neuron] + pairs


@dataclass(slots=True)
class _Draws:
    """Estimates of one estimator as they come in."""

    groups: Tensor
    """Sums, and in the end means, of the draws of each group, [G, B, N]."""
    sum_of_squares: float = 0.0
    count: int = 0
    judged: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, gradients: Tensor, group: int, judged: int, seconds: float) -> None:
        """Take in one estimate [B, N] of a group, how many images it had judged, and what it took."""
        gradients = gradients.double()
        self.groups[group] += gradients
        self.sum_of_squares += gradients.square().sum().item()
        self.count += 1
        self.judged += judged
        self.seconds.append(seconds)

    def finish(self) -> None:
        self.groups /= self.count / len(self.groups)

    @property
    def variance(self) -> float:
        """The trace of the covariance, summed over the images; to be asked when finished."""
        if len(self.groups) == 1:  # nothing is drawn
            return 0.0
        mean = self.groups.mean(dim=0)
        return max(self.sum_of_squares - self.count * mean.square().sum().item(), 0.0) / (self.count - 1)

    @property
    def evaluations(self) -> float:
        return self.judged / self.count / self.groups.shape[1]

    @property
    def milliseconds(self) -> float:
        return 1e3 * median(self.seconds) / self.groups.shape[1]


class _Subject:
    """The networks of a run, and the logits that estimators are tried at."""

    def __init__(
        self,
        run: Run,
        config: TrainingConfig,
        plan: DiagnosisOptions,
        report: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        _check_subject(config)
        checkpoint = trained_checkpoint(run, warn)
        self.step = checkpoint.meta.step
        self.slope = checkpoint.meta.slope
        self._config = config
        self._plan = plan
        self._image_shape = checkpoint.meta.image_shape
        labels = None
        real: Tensor | None = None
        if config.networks.conditional or OBJECTIVES[config.objective.objective].compares_pairs:
            real, labels = _real_images(config, plan, report)
        self._losses = ImageLosses(
            trained_discriminators(config, checkpoint), OBJECTIVES[config.objective.objective], real, labels=labels
        )
        is_as_trained = config.neurons.estimator == run.config().neurons.estimator
        self._own_estimator = tensors_under(checkpoint.tensors, "estimator.") if is_as_trained else {}
        self._random = random_stream(plan.seed, "diagnosis")
        self._judged = 0
        latents = torch.randn(plan.images, config.networks.latent_size, generator=self._random)
        with torch.no_grad():
            self._logits = trained_generator(config, checkpoint, averaged=False)(latents, labels)  # [B, C, H, W]

    def reference(self, report: Callable[[str], None]) -> Tensor:
        """The truth, [G, B, N], or for deterministic neurons the reference [1, B, N]; float64."""
        probabilities = torch.sigmoid(self.slope * self._logits)
        weights = self.slope * (probabilities * (1 - probabilities)).flatten(1)
        if self._config.neurons.training_neuron == "dbn":
            images = (probabilities > 0.5).to(probabilities.dtype)
            return (weights * flip_differences(self._losses, images)).double()[None]
        count = _in_groups(self._plan.backgrounds)
        groups = torch.zeros(GROUPS, *weights.shape, dtype=torch.float64)
        for index in range(count):
            report(f"the truth: all {weights.shape[1]} flips of {len(weights)} images, {index + 1} of {count}")
            images = draw_bits(probabilities, self._random)
            groups[index % GROUPS] += weights * flip_differences(self._losses, images)
        return groups / (count / GROUPS)

    def measure(self, names: Sequence[str], report: Callable[[str], None]) -> list[_Draws]:
        """Estimates of all estimators, in turns, so that their times can be compared."""
        is_drawn = self._config.neurons.training_neuron != "dbn"
        groups, count = (GROUPS, _in_groups(self._plan.draws)) if is_drawn else (1, _TIMED_DRAWS)
        estimators = [self._estimator(name) for name in names]
        shape = (groups, len(self._logits), math.prod(self._image_shape))
        measured = [_Draws(torch.zeros(shape, dtype=torch.float64)) for _ in names]
        for index in range(-_WARM_UP_DRAWS, count):
            if index % 10 == 0:
                report(f"{len(names)} estimators: draw {index} of {count}" if index > 0 else "warming up")
            for estimator, draws in zip(estimators, measured, strict=True):
                gradients, judged, seconds = self._estimate(estimator)
                if index >= 0:
                    # Draws in a row share a group: moving baselines make neighbours depend on each other.
                    draws.add(gradients, index * groups // count, judged, seconds)
        for draws in measured:
            draws.finish()
        return measured

    def _estimator(self, name: str) -> Estimator:
        """The estimator of that name; the one that the run was trained with as it was trained."""
        torch.manual_seed(derived_seed(self._plan.seed, "estimator"))
        if name == self._config.neurons.estimator:
            estimator = build_estimator(self._config, self._image_shape)
            if self._own_estimator:
                estimator.load_state_dict(self._own_estimator)
            return estimator
        config = self._config.replace(estimator=name, estimator_samples=None, estimator_temperature=None)
        return build_estimator(config, self._image_shape)

    def _estimate(self, estimator: Estimator) -> tuple[Tensor, int, float]:
        """Gradients of each image's loss [B, N], how many images were judged, and the CPU seconds it took."""
        logits = self._logits.clone().requires_grad_()
        self._judged = 0
        started = time.process_time()
        estimate = estimator(logits, self.slope, self._counted_losses, self._random)
        estimate.surrogate.backward()
        seconds = time.process_time() - started
        assert logits.grad is not None
        return len(logits) * logits.grad.flatten(1), self._judged, seconds

    def _counted_losses(self, images: Tensor) -> Tensor:
        self._judged += len(images)
        return self._losses(images)


def _real_images(
    config: TrainingConfig, plan: DiagnosisOptions, report: Callable[[str], None]
) -> tuple[Tensor, Tensor | None]:
    """Images that those of the generator are paired with, drawn from the run's data set, and their classes."""
    report(f"reading {config.data.dataset}")
    dataset = open_dataset(config.data, split=config.optimization.training_split)
    rows = torch.randint(len(dataset), (plan.images,), generator=random_stream(plan.seed, "diagnosis pairs"))
    labels = dataset.labels[rows] if config.networks.conditional and dataset.labels is not None else None
    return dataset.images[rows].float(), labels


def _check_subject(config: TrainingConfig) -> None:
    if config.neurons.training_neuron not in BINARY_NEURONS:
        raise ConfigError(
            "the run has real neurons, whose gradient is exact; --neuron sbn takes them as stochastic"
        )
    if config.networks.discriminator_norm == "batch":
        raise ConfigError(
            "the run's discriminator has batch normalization, so the loss of an image depends on the others of "
            "its batch, and no image has a gradient of its own"
        )


def _usable(asked: Sequence[str], config: TrainingConfig) -> tuple[list[str], dict[str, str]]:
    """The estimators to measure, and the others with the reason. Raises ConfigError if one was asked for."""
    unknown = [name for name in asked if name not in ESTIMATORS]
    if unknown:
        raise ConfigError(f"estimator is {unknown[0]!r}; choose one of {', '.join(ESTIMATORS)}")
    refused = {}
    assert config.neurons.training_neuron is not None
    assert config.networks.discriminator is not None
    for name in asked or ESTIMATORS:
        reason = refusal(
            name,
            neuron=config.neurons.training_neuron,
            objective=config.objective.objective,
            discriminator_norm=config.networks.discriminator_norm,
            discriminator=config.networks.discriminator,
        )
        if reason is not None:
            refused[name] = reason
    if asked and refused:
        name, reason = next(iter(refused.items()))
        raise ConfigError(f"the estimator {name} {reason}")
    others = [name for name in asked or ESTIMATORS if name not in {BASELINE, *refused}]
    return [BASELINE, *others], refused


def _in_groups(count: int) -> int:
    """The count, rounded up to the same number for each group."""
    return -(-count // GROUPS) * GROUPS
