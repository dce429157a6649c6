"""What estimators are tried on: the networks of a run, and its generator's logits of some latents."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...common.errors import ConfigError
from ...common.image_shape import ImageShape
from ...common.rng import CPU, derived_seed, global_generator, random_stream
from ...common.tensor_files import tensors_under
from ...config.estimators import BINARY_NEURONS
from ...config.training import TrainingConfig
from ...data.dataset import BinaryDataset
from ...training.checkpoint import trained_discriminators, trained_generator
from ...training.estimators.base import Estimator
from ...training.estimators.build import build_estimator
from ...training.objectives import ImageLosses, configured_objective
from ...training.run import Run, trained_checkpoint
from ...training.training_set import open_training_set

_NO_GRADIENT = "so the loss of an image depends on the others of its batch, and no image has a gradient of its own"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A trained generator at B latents, and its discriminators, which judge images without augmentation."""

    config: TrainingConfig
    step: int
    slope: float
    logits: Tensor
    """[B, C, H, W], of the trained generator, not of its moving average."""
    losses: ImageLosses
    estimator_state: dict[str, Tensor]
    """What the run's own estimator has learned; empty where another one takes its place."""
    seed: int
    random: torch.Generator
    """Draws the noise of the truth, then that of the estimates."""

    @property
    def neuron(self) -> str:
        """The neurons that make the images: "dbn" or "sbn"."""
        return self.config.neurons.training_neuron

    def build_estimator(self, name: str) -> Estimator:
        """The estimator of that name; the run's own one as it was trained."""
        is_own = name == self.config.neurons.estimator
        config = self.config if is_own else with_estimator(self.config, name, self.neuron)
        with global_generator(derived_seed(self.seed, "estimator")):
            estimator = build_estimator(config, ImageShape(*self.logits.shape[1:])).to(self.logits.device)
        if is_own and self.estimator_state:
            estimator.load_state_dict(self.estimator_state)
        return estimator


def load_subject(
    run: Run,
    config: TrainingConfig,
    *,
    images: int,
    seed: int,
    dataset: BinaryDataset | None = None,
    device: torch.device = CPU,
    report: Callable[[str], None],
    warn: Callable[[str], None],
) -> Subject:
    """The subject of a run's newest checkpoint and `images` latents, by settings that may differ from the run's.

    `report` is called with what is done, `warn` with damaged checkpoints. Raises ConfigError for runs with real
    neurons or with batch normalization in the discriminator, RunError without a checkpoint, DataError where the
    data set is needed and cannot be read.
    """
    _check(config)
    checkpoint = trained_checkpoint(run, warn)
    objective = configured_objective(config.objective.objective, run.given.objective)
    real = labels = None
    if config.networks.conditional or objective.compares_pairs:
        report(f"reading {config.data.dataset}")
        real, labels = (
            part if part is None else part.to(device) for part in _real_images(run, config, dataset, images, seed)
        )
    is_as_trained = config.neurons.estimator == run.config().neurons.estimator
    random = random_stream(seed, "diagnosis", device=device)
    latents = torch.randn(images, config.networks.latent_size, generator=random, device=device)
    discriminators = trained_discriminators(config, checkpoint, given=run.given).to(device)
    if mixing := [each for each in discriminators if each.mixes_rows]:
        name = getattr(mixing[0], "name", config.networks.discriminator)
        raise ConfigError(f"the run's discriminator {name} mixes the images of a batch, {_NO_GRADIENT}")
    losses = ImageLosses(discriminators, objective, real, labels=labels)
    with torch.no_grad():
        logits = trained_generator(config, checkpoint, averaged=False, given=run.given).to(device)(latents, labels)
    return Subject(
        config=config,
        step=checkpoint.meta.step,
        slope=checkpoint.meta.slope,
        logits=logits,
        losses=losses,
        estimator_state=tensors_under(checkpoint.tensors, "estimator.") if is_as_trained else {},
        seed=seed,
        random=random,
    )


def with_estimator(config: TrainingConfig, name: str, neuron: str) -> TrainingConfig:
    """The settings with that estimator, as it is by default, for neurons that may be others, too."""
    return config.replace(
        training_neuron=neuron, estimator=name, estimator_samples=None, estimator_temperature=None
    )


def _check(config: TrainingConfig) -> None:
    if config.neurons.training_neuron not in BINARY_NEURONS:
        raise ConfigError("real neurons have an exact gradient; --neuron sbn treats the run's as stochastic ones")
    if config.networks.discriminator_norm == "batch":
        raise ConfigError(f"the run's discriminator has batch normalization, {_NO_GRADIENT}")


def _real_images(
    run: Run, config: TrainingConfig, given: BinaryDataset | None, count: int, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Real images [count, C, H, W] to pair with generated ones, and their classes [count] for conditional runs."""
    dataset = open_training_set(config, run, dataset=given)
    rows = torch.randint(len(dataset), (count,), generator=random_stream(seed, "diagnosis pairs"))
    labels = dataset.labels[rows] if config.networks.conditional and dataset.labels is not None else None
    return dataset.images[rows].float(), labels
