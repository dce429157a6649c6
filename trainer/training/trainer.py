"""Training: one iteration, and the loop around it.

With classes a generated image has the class of the real one in its row, so pairs are of one class and classes are
as frequent among generated images as in the data set.

Shapes: B batch, Z latent size, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.errors import ConfigError, DivergenceError
from ..common.rng import derived_seed, random_stream
from ..common.tensor_files import tensors_under
from ..config.training import TrainingConfig
from ..data.batches import BatchStream
from ..data.dataset import BinaryDataset
from ..networks.build import configured_discriminators, configured_generator
from ..networks.discriminators import Discriminator
from ..networks.generators import Generator, set_output_bias
from ..networks.neurons import OutputNeurons, annealed_slope
from .augmentation import ImageTransform, build_augmentation
from .ema import ema_copy, update_ema
from .estimators.build import build_estimator
from .losses import ImageLosses
from .objectives import OBJECTIVES, clip_weights, gradient_penalty, gradient_square
from .optimizers import build_optimizer, discriminator_steps_before, discriminator_steps_in, learning_rate_factor

GRID_COUNT = 64


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of one iteration; those of the discriminator are of its last step."""

    discriminator: float
    generator: float
    penalty: float
    """The weighted gradient penalty within `discriminator`; 0 where the objective has none."""


class Trainer:
    """The networks, optimizers and step counter of one run.

    All random numbers of an iteration follow from (seed, step), so state is the tensors of
    `state_dict` and the step alone.
    """

    def __init__(self, config: TrainingConfig, dataset: BinaryDataset, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.objective = OBJECTIVES[config.objective.objective]
        self.image_shape = dataset.image_shape
        self.classes = dataset.class_names if config.networks.conditional else ()
        """The names of the classes that images are made of; none without --conditional."""
        self.augmentation = build_augmentation(config.objective.augment, self.image_shape)
        self.step = 0

        torch.manual_seed(derived_seed(config.run.seed, "weights"))
        self.generator = configured_generator(config, self.image_shape, len(self.classes))
        if config.networks.output_bias == "mean":
            set_output_bias(self.generator, dataset.mean_image())
        self.discriminators = configured_discriminators(config, self.image_shape, len(self.classes))
        for network in (self.generator, self.discriminators):
            network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = ema_copy(self.generator) if config.optimization.ema_decay else None
        assert config.neurons.training_neuron is not None
        self.neurons = OutputNeurons(config.neurons.training_neuron)
        self.estimator = build_estimator(config, self.image_shape).to(device)
        assert config.optimization.discriminator_learning_rate is not None
        self.generator_optimizer = _build_optimizer(config, self.generator, config.optimization.learning_rate)
        self.discriminator_optimizer = _build_optimizer(
            config, self.discriminators, config.optimization.discriminator_learning_rate
        )

        self.batches = BatchStream(
            dataset.images,
            batch_size=config.optimization.batch_size,
            seed=derived_seed(config.run.seed, "data"),
            device=device,
            labels=dataset.labels if config.networks.conditional else None,
        )
        grid = random_stream(config.run.seed, "grid")
        self._grid_latents = torch.randn(GRID_COUNT, config.networks.latent_size, generator=grid).to(device)
        self._grid_uniforms = torch.rand(GRID_COUNT, *self.image_shape, generator=grid).to(device)
        self._grid_labels = None
        if self.classes:
            self._grid_labels = torch.arange(GRID_COUNT, device=device) % len(self.classes)

    @property
    def steps_per_epoch(self) -> int:
        """Generator iterations in an epoch: floor(images / batch size), as in the published code."""
        return self.batches.batches_per_epoch

    @property
    def total_steps(self) -> int:
        """Generator iterations in the whole run."""
        return self.config.optimization.epochs * self.steps_per_epoch

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.steps_per_epoch

    def slope_at(self, step: int) -> float:
        """The slope of the binary neurons in the iteration that follows `step`; 1 for the real-valued model."""
        if self.config.neurons.training_neuron == "real":
            return 1.0
        epoch = step // self.steps_per_epoch
        return annealed_slope(epoch, rate=self.config.neurons.slope_rate, cap=self.config.neurons.slope_cap)

    @property
    def current_slope(self) -> float:
        """The slope of the last iteration done: the one that the weights as they are belong to."""
        return self.slope_at(max(self.step - 1, 0))

    def train_step(self) -> Losses:
        """One iteration: the discriminator's steps, then the generator's.

        Each has fresh images and latents, or, without `fresh_batches`, all of an iteration share one batch
        of images and one of latents, and one forward pass of the generator.
        Raises DivergenceError, before the weights change, if a loss or the logits are not finite, or if a
        loss is beyond what the objective takes for training.
        """
        random = random_stream(self.config.run.seed, "step", self.step, device=self.device)
        if self.augmentation is not None:
            self._augmenting = random_stream(self.config.run.seed, "augmentation", self.step, device=self.device)
        self.neurons.slope = self.slope_at(self.step)
        if not math.isfinite(self.neurons.slope):
            raise DivergenceError(
                f"the slope overflowed at step {self.step}; bound it with --slope-cap, or lower --slope-rate"
            )
        self._set_learning_rates()
        indices = self._batch_indices()
        shared_logits = None
        if not self.config.objective.fresh_batches:
            shared_logits = self._logits(random, self.batches.labels(indices[0]))
        for index in indices:
            real = self._augmented(self.batches.batch(index))
            labels = self.batches.labels(index)
            discriminator_loss, penalty = self._discriminator_step(real, labels, random, shared_logits)
        generator_loss = self._generator_step(random, shared_logits, real, labels)
        if self.ema is not None:
            update_ema(self.ema, self.generator, decay=self.config.optimization.ema_decay, step=self.step)
        self.step += 1
        return Losses(discriminator_loss, generator_loss, penalty)

    @torch.no_grad()
    def sample_grid(self) -> Tensor:
        """Images [64, C, H, W] of the run's fixed latents, as an exported generator would make them.

        With classes each has the one after that of the image before it.
        """
        generator = self.sampled_generator.eval()
        neurons = OutputNeurons(self.config.neurons.neuron, slope=self.current_slope)
        images: Tensor = neurons(generator(self._grid_latents, self._grid_labels), self._grid_uniforms)
        self.generator.train()
        return images

    @property
    def sampled_generator(self) -> Generator:
        """The averaged generator if one is kept, else the one that is trained."""
        return self.generator if self.ema is None else self.ema

    def state_dict(self) -> dict[str, Tensor]:
        """All state but the step, as named tensors."""
        tensors: dict[str, Tensor] = {}
        for name, module, optimizer in self._stateful():
            tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
            if optimizer is None:
                continue
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}_optimizer.{index}.{key}": value for key, value in state.items()}
        if self.ema is not None:
            tensors |= {f"average.{key}": value for key, value in self.ema.state_dict().items()}
        return tensors

    def load_state_dict(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go back to where `state_dict` gave these tensors, after `step` iterations."""
        for name, module, optimizer in self._stateful():
            module.load_state_dict(tensors_under(tensors, f"{name}."), strict=True)
            if optimizer is None:
                continue
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors_under(tensors, f"{name}_optimizer.").items():
                index, _, slot = key.partition(".")
                state.setdefault(int(index), {})[slot] = value
            if state:
                _like_parameters(state, module)
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        if self.ema is not None:
            self.ema.load_state_dict(tensors_under(tensors, "average."))
        self.step = step

    def _stateful(self) -> list[tuple[str, torch.nn.Module, torch.optim.Optimizer | None]]:
        """What state is kept of: a name, a module, and the optimizer of its parameters where it has one."""
        return [
            ("generator", self.generator, self.generator_optimizer),
            ("discriminator", self.discriminators, self.discriminator_optimizer),
            ("estimator", self.estimator, self.estimator.optimizer),
        ]

    def _batch_indices(self) -> Sequence[int]:
        """Which batch of images each discriminator step of this iteration sees."""
        steps, bursts = self.config.objective.discriminator_steps, self.config.objective.discriminator_bursts
        assert steps is not None
        count = discriminator_steps_in(self.step, steps=steps, bursts=bursts)
        if not self.config.objective.fresh_batches:
            return [self.step] * count
        first = discriminator_steps_before(self.step, steps=steps, bursts=bursts)
        return range(first, first + count)

    def _transform(self, count: int) -> ImageTransform | None:
        """What happens to so many images before they are judged."""
        return None if self.augmentation is None else self.augmentation.draw(count, self._augmenting)

    def _augmented(self, images: Tensor) -> Tensor:
        """The images as they are judged."""
        transform = self._transform(len(images))
        return images if transform is None else transform(images)

    def _discriminator_step(
        self, real: Tensor, labels: Tensor | None, random: torch.Generator, logits: Tensor | None
    ) -> tuple[float, float]:
        with torch.no_grad():
            fake = self._augmented(self._fake_images(random, logits, labels))  # [B, C, H, W]
        self.discriminators.requires_grad_(True)
        losses, penalties = zip(
            *[
                self._discriminator_loss(discriminator, real, fake, random, labels)
                for discriminator in self.discriminators
            ],
            strict=True,
        )
        penalty = torch.stack(penalties).sum()
        loss = torch.stack(losses).sum() + penalty
        at_most = len(losses) * self.objective.loss_at_most
        value = self._minimize(loss, self.discriminator_optimizer, "discriminator", at_most=at_most)
        if self.objective.clips_weights:
            clip_weights(self.discriminators, self.config.objective.clip_value)
        return value, penalty.item()

    def _discriminator_loss(
        self,
        discriminator: Discriminator,
        real: Tensor,
        fake: Tensor,
        random: torch.Generator,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The loss proper of one discriminator, and the weighted penalty of its gradient."""
        weight = self.config.objective.penalty_weight
        assert weight is not None
        if self.objective.compares_pairs:
            real_logits, fake_logits, *gradients = _logits_and_gradients(discriminator, real, fake, labels)
            loss = self.objective.discriminator_loss(real_logits, fake_logits)
            return loss, weight * gradient_square(*gradients)
        loss = self.objective.discriminator_loss(*_real_and_fake_logits(discriminator, real, fake, labels))
        if not self.objective.penalizes_gradient:
            return loss, torch.zeros(())
        mix = torch.rand(len(real), 1, 1, 1, generator=random, device=self.device)
        return loss, weight * gradient_penalty(discriminator, real, fake, mix, labels)

    def _generator_step(
        self, random: torch.Generator, logits: Tensor | None, real: Tensor, labels: Tensor | None
    ) -> float:
        """A step on fresh latents, or on `logits`; `real` are the images of the last discriminator step."""
        self.discriminators.requires_grad_(False)
        if logits is None:
            logits = self._logits(random, labels)
        if not math.isfinite(logits.sum().item()):  # thresholded, NaN is a black image of a finite loss
            raise self._diverged("the generator's logits are not finite")
        transform = self._transform(len(real))
        losses = ImageLosses(self.discriminators, self.objective, real, labels=labels, transform=transform)
        estimate = self.estimator(logits, self.neurons.slope, losses, random)
        return self._minimize(estimate.surrogate, self.generator_optimizer, "generator", value=estimate.value)

    def _set_learning_rates(self) -> None:
        """Those of this step: a function of it alone."""
        factor = learning_rate_factor(
            self.step, total=self.total_steps, decay=self.config.optimization.learning_rate_decay
        )
        assert self.config.optimization.discriminator_learning_rate is not None
        _set_learning_rate(self.generator_optimizer, factor * self.config.optimization.learning_rate)
        _set_learning_rate(
            self.discriminator_optimizer, factor * self.config.optimization.discriminator_learning_rate
        )

    def _logits(self, random: torch.Generator, labels: Tensor | None) -> Tensor:
        """The generator's logits [B, C, H, W] of fresh latents, and of labels [B] where there are classes."""
        latents = torch.randn(
            self.config.optimization.batch_size,
            self.config.networks.latent_size,
            generator=random,
            device=self.device,
        )
        logits: Tensor = self.generator(latents, labels)
        return logits

    def _fake_images(self, random: torch.Generator, logits: Tensor | None, labels: Tensor | None) -> Tensor:
        """Images of the logits, or of fresh latents; the noise of stochastic neurons is always fresh."""
        if logits is None:
            logits = self._logits(random, labels)
        uniforms = None
        if self.neurons.needs_uniforms:
            uniforms = torch.rand(logits.shape, generator=random, device=self.device)
        images: Tensor = self.neurons(logits, uniforms)
        return images

    def _minimize(
        self,
        loss: Tensor,
        optimizer: torch.optim.Optimizer,
        network: str,
        *,
        value: Tensor | None = None,
        at_most: float = math.inf,
    ) -> float:
        """One step of the optimizer, and the loss; `value` is what to report where `loss` is a surrogate."""
        reported = loss.item() if value is None else value.item()
        problem = None if math.isfinite(reported) and reported <= at_most else f"loss is {reported:.4g}"
        if value is not None and value is not loss and not math.isfinite(loss.item()):
            problem = problem or "gradient estimate is not finite"
        if problem is not None:
            raise self._diverged(f"the {network}'s {problem}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return reported

    def _diverged(self, problem: str) -> DivergenceError:
        return DivergenceError(
            f"{problem} at step {self.step}, epoch {self.epoch + 1}; try a lower --learning-rate, a lower "
            "--slope-cap, or --objective wgan-gp"
        )


def _real_and_fake_logits(
    discriminator: Discriminator, real: Tensor, fake: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Logits [B] of real and of fake images, in one pass unless rows of a batch affect each other."""
    if discriminator.mixes_rows:
        return discriminator(real, labels), discriminator(fake, labels)
    real_logits, fake_logits = discriminator(torch.cat([real, fake]), _twice(labels)).chunk(2)
    return real_logits, fake_logits


def _logits_and_gradients(
    discriminator: Discriminator, real: Tensor, fake: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `_real_and_fake_logits` gives, and the gradients [B, C * H * W] of both by their images."""
    both = discriminator.logits_and_input_gradient
    if discriminator.mixes_rows:
        (real_logits, real_gradient), (fake_logits, fake_gradient) = both(real, labels), both(fake, labels)
    else:
        logits, gradient = both(torch.cat([real, fake]), _twice(labels))
        (real_logits, fake_logits), (real_gradient, fake_gradient) = logits.chunk(2), gradient.chunk(2)
    return real_logits, fake_logits, real_gradient, fake_gradient


def _twice(labels: Tensor | None) -> Tensor | None:
    """The labels of real images and of the fake ones of the same classes."""
    return None if labels is None else torch.cat([labels, labels])


def resolve_device(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises ConfigError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used ({reason}); try --device auto") from error
    return device


def _build_optimizer(
    config: TrainingConfig, module: torch.nn.Module, learning_rate: float
) -> torch.optim.Optimizer:
    assert config.optimization.optimizer is not None
    betas = (config.optimization.adam_beta1, config.optimization.adam_beta2)
    return build_optimizer(
        config.optimization.optimizer,
        config.optimization.optimizer_form,
        module,
        learning_rate=learning_rate,
        betas=betas,
    )


def _set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def _like_parameters(state: dict[int, dict[str, Tensor]], module: torch.nn.Module) -> None:
    """Lay the optimizer's tensors out in memory as the parameters that they belong to."""
    for parameter, slots in zip(module.parameters(), (state[index] for index in sorted(state)), strict=True):
        for slot, value in slots.items():
            if value.shape == parameter.shape:
                slots[slot] = torch.empty_like(parameter, requires_grad=False).copy_(value)
