"""What estimators are tried on: the networks of a run, and its generator's logits of neurons at some latents."""

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
from ...networks.build import AnyGenerator
from ...networks.inner import InnerPass, draw_inner_uniforms, inner_pass
from ...networks.neurons import OutputNeurons
from ...training.checkpoint import Checkpoint, trained_discriminators, trained_generator
from ...training.estimators.base import Estimator, LossFunction
from ...training.estimators.build import build_estimator, build_inner_estimator
from ...training.inner import BitLosses, LogitLosses, as_images
from ...training.objectives import ImageLosses, configured_objective
from ...training.run import Run, trained_checkpoint
from ...training.training_set import open_training_set

NEURONS_OF = ("output", "gates", "hidden")
"""The neurons of a generator that can be measured."""
_CHOSEN = 256  # of more hidden neurons
_NO_GRADIENT = "so the loss of an image depends on the others of its batch, and no image has a gradient of its own"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Neurons of a trained generator at B latents, and its discriminators, which judge without augmentation."""

    config: TrainingConfig
    of: str
    """Which neurons: those of the "output", "gates" or "hidden" ones."""
    step: int
    slope: float
    logits: Tensor
    """[B, C, H, W], or [B, N, 1, 1] of inner neurons; of the trained generator, not of its moving average."""
    losses: LossFunction
    """Bits shaped as the logits to the losses [B]; of inner neurons by one draw of the output neurons' noise."""
    places: Tensor | None
    """Which of the N neurons are compared, [M]; None: all."""
    estimator_state: dict[str, Tensor]
    """What the run's own estimator has learned; empty where another one takes its place."""
    seed: int
    random: torch.Generator
    """Draws the noise of the truth, then that of the estimates."""

    @property
    def neuron(self) -> str:
        """The kind of the neurons: "dbn" or "sbn"."""
        return neuron_of(self.config, self.of)

    def chosen(self, values: Tensor) -> Tensor:
        """Those of the neurons that are compared, [B, M], of values shaped as the logits."""
        flat = values.flatten(1)
        return flat if self.places is None else flat[:, self.places]

    def build_estimator(self, name: str) -> Estimator:
        """The estimator of that name; the run's own one as it was trained."""
        is_own = name == estimator_of(self.config, self.of)
        config = self.config if is_own else with_estimator(self.config, self.of, name, self.neuron)
        with global_generator(derived_seed(self.seed, "estimator")):
            estimator = self._built(config).to(self.logits.device)
        if is_own and self.estimator_state:
            estimator.load_state_dict(self.estimator_state)
        return estimator

    def _built(self, config: TrainingConfig) -> Estimator:
        if self.of == "output":
            return build_estimator(config, ImageShape(*self.logits.shape[1:]))
        estimator = build_inner_estimator(config.inner, self.logits.shape[1])
        assert estimator is not None  # there are inner neurons
        return estimator


def load_subject(
    run: Run,
    config: TrainingConfig,
    of: str,
    *,
    images: int,
    seed: int,
    dataset: BinaryDataset | None = None,
    device: torch.device = CPU,
    report: Callable[[str], None],
    warn: Callable[[str], None],
) -> Subject:
    """The subject of a run's newest checkpoint and `images` latents, by settings that may differ from the run's.

    `report` is called with what is done, `warn` with damaged checkpoints. Raises ConfigError for real neurons and
    for runs with batch normalization in the discriminator, RunError without a checkpoint, DataError where the data
    set is needed and cannot be read.
    """
    _check(config, of)
    checkpoint = trained_checkpoint(run, warn)
    objective = configured_objective(config.objective.objective, run.given.objective)
    real = labels = None
    if config.networks.conditional or objective.compares_pairs:
        report(f"reading {config.data.dataset}")
        real, labels = (
            part if part is None else part.to(device) for part in _real_images(run, config, dataset, images, seed)
        )
    random = random_stream(seed, "diagnosis", device=device)
    latents = torch.randn(images, config.networks.latent_size, generator=random, device=device)
    discriminators = trained_discriminators(config, checkpoint, given=run.given).to(device)
    if mixing := [each for each in discriminators if each.mixes_rows]:
        name = getattr(mixing[0], "name", config.networks.discriminator)
        raise ConfigError(f"the run's discriminator {name} mixes the images of a batch, {_NO_GRADIENT}")
    losses = ImageLosses(discriminators, objective, real, labels=labels)
    generator = trained_generator(config, checkpoint, averaged=False, given=run.given).to(device)
    slope = checkpoint.meta.slope
    with torch.no_grad():
        passed = inner_pass(generator, latents, labels)
        logits, found = _neurons(config, of, generator, passed, losses, slope, random)
    return Subject(
        config=config,
        of=of,
        step=checkpoint.meta.step,
        slope=slope,
        logits=logits,
        losses=found,
        places=_places(of, logits, seed),
        estimator_state=_estimator_state(run, config, of, checkpoint),
        seed=seed,
        random=random,
    )


def _neurons(
    config: TrainingConfig,
    of: str,
    generator: AnyGenerator,
    passed: InnerPass,
    losses: ImageLosses,
    slope: float,
    random: torch.Generator,
) -> tuple[Tensor, LossFunction]:
    """The logits of the neurons, and the losses of their bits; those of other neurons are drawn once."""
    if of == "output":
        bits = passed.logits
        if config.inner.neuron is not None:
            uniforms = draw_inner_uniforms(generator, len(bits), random)
            bits = OutputNeurons(config.inner.neuron, slope=slope)(bits, uniforms)
        return passed.outputs(bits), losses
    return as_images(passed.logits), BitLosses(passed, LogitLosses(config.neurons, losses, slope, random))


def _places(of: str, logits: Tensor, seed: int) -> Tensor | None:
    """The neurons that are compared, where there are too many to flip all."""
    count = logits.shape[1]
    if of != "hidden" or count <= _CHOSEN:
        return None
    random = random_stream(seed, "diagnosis neurons")
    return torch.randperm(count, generator=random)[:_CHOSEN].sort().values.to(logits.device)


def _estimator_state(run: Run, config: TrainingConfig, of: str, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """What the estimator has learned, unless the settings have another one than the run."""
    if estimator_of(config, of) != estimator_of(run.config(), of):
        return {}
    return tensors_under(checkpoint.tensors, "estimator." if of == "output" else "inner.estimator.")


def default_neurons(config: TrainingConfig) -> str:
    """The neurons of a run that are measured unless others are asked for: its inner ones, if it has any."""
    if config.inner.gates is not None:
        return "gates"
    return "output" if config.inner.neuron is None else "hidden"


def neuron_of(config: TrainingConfig, of: str) -> str:
    """The kind of those neurons: "dbn", "sbn" or "real"."""
    inner = config.inner.neuron
    return config.neurons.training_neuron if of == "output" or inner is None else inner


def estimator_of(config: TrainingConfig, of: str) -> str:
    """The name of the estimator that those neurons are trained with."""
    inner = config.inner.estimator
    return config.neurons.estimator if of == "output" or inner is None else inner


def with_estimator(config: TrainingConfig, of: str, name: str, neuron: str) -> TrainingConfig:
    """The settings with that estimator, as it is by default, for neurons that may be others, too."""
    if of == "gates":
        return config.replace(gate_neuron=neuron, gate_estimator=name)
    if of == "hidden":
        return config.replace(hidden_neuron=neuron, hidden_estimator=name)
    return config.replace(
        training_neuron=neuron, estimator=name, estimator_samples=None, estimator_temperature=None
    )


def _check(config: TrainingConfig, of: str) -> None:
    if of not in NEURONS_OF:
        raise ConfigError(f"of is {of!r}; choose one of {', '.join(NEURONS_OF)}")
    if of != "output" and of != default_neurons(config):
        what, needed = {"gates": ("gates", "--gates"), "hidden": ("binary hidden layer", "--hidden-neuron")}[of]
        raise ConfigError(f"the run has no {what}, it was trained without {needed}; leave out --of {of}")
    if neuron_of(config, of) not in BINARY_NEURONS:
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
