"""One iteration of training, and the state that it changes.

With classes a generated image has the class of the real one in its row, so pairs are of one class and classes are
as frequent among generated images as in the data set.

Shapes: B batch, Z latent size, C channels, H rows, W columns.
"""

import copy
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..common.errors import ConfigError, DeviceError, DivergenceError, NetworkError, UserError
from ..common.rng import derived_seed, global_generator, random_stream
from ..common.tensor_files import tensors_under
from ..common.text import first_line
from ..config.estimators import ESTIMATORS, estimator_entry
from ..config.training import TrainingConfig
from ..data.dataset import BatchStream, BinaryDataset
from ..networks.build import (
    configured_discriminators,
    configured_generator,
    output_generator,
    parameter_count,
)
from ..networks.discriminators import AnyDiscriminator, Discriminator
from ..networks.gates import GatedGenerator
from ..networks.generators import Generator, set_output_bias
from ..networks.inner import InnerGenerator, InnerPass, draw_inner_uniforms, generator_logits, inner_pass
from ..networks.neurons import Number, OutputNeurons, annealed_slope
from ..networks.own import OwnDiscriminator, OwnGenerator
from ..networks.refiner import RefinedGenerator
from ..networks.trial import try_discriminator, try_generator
from .augmentation import ImageTransform, build_augmentation
from .capture import Batch, CapturedIterations, check_capture
from .checkpoint import EMA_NAME, load_module, load_optimizer, optimizer_tensors
from .distributed import ALONE, World
from .estimators.base import draw_uniforms
from .estimators.build import build_estimator
from .gate_rates import hold_rates
from .gate_shares import GateShares, gate_shares
from .given import NOTHING_GIVEN, Given
from .inner import InnerNeurons, LogitLosses
from .objectives import (
    OBJECTIVES,
    ImageLosses,
    clip_weights,
    configured_objective,
    gradient_penalty,
    gradient_square,
)
from .optimizers import (
    ExponentialAverage,
    build_optimizer,
    discriminator_steps_before,
    discriminator_steps_in,
    learning_rate_factor,
)
from .shards import ShardLoss, ShardMeans

GRID_COUNT = 64
# Of the generator's learning rate: gates that wander take parts from the images that trained them.
_GATES_RATE = 0.1
_CHECKED = 5  # values of an iteration; the shares of gates follow them
READ_EVERY_STEPS = 50
"""Iterations after which losses are read from the device at the latest."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The losses of one iteration; those of the discriminator are of its last step."""

    discriminator: float
    generator: float
    penalty: float
    """The weighted gradient penalty within `discriminator`; 0 where the objective has none."""
    slope: float
    """The slope of the binary neurons in this iteration."""
    gates: tuple[float, ...] = ()
    """For each gate, the share of images for which it was on, over the iterations since losses were last read."""

    def figures(self) -> dict[str, float]:
        """All of it by name, for logs; of gates their mean share, the least and the most."""
        figures = {name: value for name, value in asdict(self).items() if name != "gates"}
        if self.gates:
            mean = sum(self.gates) / len(self.gates)
            figures |= {"gate_rate": mean, "gate_least": min(self.gates), "gate_most": max(self.gates)}
        return figures


class StepInputs(NamedTuple):
    """What a step of one of the two networks works on."""

    real: Tensor
    """Real images as the discriminator sees them, [B, C, H, W] of 0 and 1."""
    labels: Tensor | None
    """Their classes [B], which the generated images have too; None without classes."""
    passed: InnerPass | None
    """The generator's forward pass for all steps of the iteration; None: each step draws its own latents."""
    slope: Number
    random: torch.Generator
    """Where the noise of the iteration comes from."""
    draw_transform: Callable[[int], ImageTransform | None]
    """Draws the transform of so many images on their way to the discriminator; None: they pass as they are."""


class Trainer:
    """The networks, optimizers and step counter of one run.

    All random numbers of an iteration follow from (seed, step), so state is the tensors of
    `state_dict` and the step alone.
    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset: BinaryDataset,
        device: torch.device,
        world: World = ALONE,
        given: Given = NOTHING_GIVEN,
    ) -> None:
        """With others in the `world` this one trains on its shards of each batch; all have the same weights.

        Raises ConfigError where networks of one's own, by name or `given`, cannot be trained so.
        """
        self.config, self.world = config, world
        self.shards = ShardMeans(config.optimization.shards, world)
        self.device = device
        self.objective = configured_objective(config.objective.objective, given.objective)
        self.image_shape = dataset.image_shape
        self.classes = dataset.class_names if config.networks.conditional else ()
        """The names of the classes of a class-conditional run, by label; else none."""
        self.class_counts = dataset.class_counts if config.networks.conditional else ()
        """How many images of each class there are."""
        self.augmentation = build_augmentation(config.objective.augment, self.image_shape)
        self.step = 0
        self._unread: list[Tensor] = []  # the values of the last iterations, on the device
        self.losses: Losses | None = None
        """The last that were read."""
        self._streams: dict[str, torch.Generator] = {}
        self._scalars: dict[str, Tensor] = {}
        self._captured = self._capture()
        with global_generator(derived_seed(config.run.seed, "weights")):
            self._build_networks(dataset, given)
        self._discriminator_loss_at_most = len(self.discriminators) * self.objective.loss_at_most
        self.batches = BatchStream(
            dataset.images,
            batch_size=config.optimization.batch_size,
            seed=derived_seed(config.run.seed, "data"),
            device=device,
            labels=dataset.labels if config.networks.conditional else None,
            shards=config.optimization.shards,
        )
        grid = random_stream(config.run.seed, "grid")
        self._grid_latents = torch.randn(GRID_COUNT, config.networks.latent_size, generator=grid).to(device)
        self._grid_uniforms = torch.rand(GRID_COUNT, *self.image_shape, generator=grid).to(device)
        inner = draw_inner_uniforms(self.generator, GRID_COUNT, grid)
        self._grid_inner = None if inner is None else inner.to(device)
        self._grid_labels = torch.arange(GRID_COUNT, device=device) % len(self.classes) if self.classes else None

    def _capture(self) -> CapturedIterations | None:
        if not self.config.run.capture:
            return None
        check_capture(self.config, self.device)
        iterate = lambda batches: self._iterate(len(batches), lambda place, shard: batches[place])  # noqa: E731
        return CapturedIterations(iterate, self.device)

    def _build_networks(self, dataset: BinaryDataset, given: Given) -> None:
        config = self.config
        class_count = len(self.classes)
        self.generator = configured_generator(config, self.image_shape, class_count, given.generator)
        if isinstance(self.generator, OwnGenerator):
            try_generator(self.generator)
        elif config.networks.output_bias == "mean" and self.world.is_first:  # whose state all others get
            set_output_bias(output_generator(self.generator), dataset.mean_image())
        if isinstance(self.generator, GatedGenerator):  # from the first iteration on
            hold_rates(self.generator, config.inner.gate_rate or 1, 1.0, self.class_counts)
        self.discriminators = configured_discriminators(
            config, self.image_shape, class_count, given.discriminators
        )
        self._try_discriminators()
        if not list(self.discriminators.parameters()):
            raise ConfigError(f"the discriminator {self.discriminators[0].name} has no parameters to train")
        self._judging = [each for each in self.discriminators.parameters() if each.requires_grad]
        networks = (self.generator, *self.discriminators)
        self._own_networks = [each for each in networks if isinstance(each, OwnGenerator | OwnDiscriminator)]
        if self._own_networks and config.run.capture:
            raise ConfigError("capture goes with networks of bgan alone; train without --capture")
        for network in networks:
            network.to(self.device)
            # other code may count on the usual layout
            if isinstance(network, Generator | InnerGenerator | RefinedGenerator | Discriminator):
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        own = config.optimization
        self.ema = ExponentialAverage(self.generator, decay=own.ema_decay) if own.ema_decay else None
        self.estimator = build_estimator(config, self.image_shape).to(self.device)
        count = self.generator.inner_count if isinstance(self.generator, InnerGenerator) else 0
        self.inner = InnerNeurons(config.inner, count).to(self.device)
        self.generator_optimizer = self._optimizer(self.generator, own.learning_rate)
        self.discriminator_optimizer = self._optimizer(self.discriminators, own.discriminator_learning_rate)

    def _try_discriminators(self) -> None:
        """Raise ConfigError where the objective or the estimator cannot use discriminators of one's own."""
        needs_gradient = self.objective.compares_pairs or self.objective.penalizes_gradient
        names = (self.config.neurons.estimator, self.config.inner.estimator)
        estimators = [name for name in names if name and estimator_entry(name).needs_image_losses]
        for each in self.discriminators:
            if isinstance(each, OwnDiscriminator):
                try_discriminator(each, self.image_shape, needs_gradient=needs_gradient)
                if each.mixes_rows and estimators:
                    raise ConfigError(
                        f"the estimator {estimators[0]} needs a loss of each image by itself, and "
                        f"the discriminator {each.name} mixes the images of a batch; choose another --estimator"
                    )

    def _optimizer(self, module: nn.Module, learning_rate: float) -> Optimizer:
        own = self.config.optimization
        betas = (own.adam_beta1, own.adam_beta2)
        optimizer = build_optimizer(
            own.optimizer, own.optimizer_form, module, learning_rate=learning_rate, betas=betas
        )
        if isinstance(module, GatedGenerator):
            (group,) = optimizer.param_groups
            gates = list(module.gate.parameters())  # the last ones: optimizers keep the order of the module's
            group["params"] = group["params"][: -len(gates)]
            optimizer.add_param_group({**group, "params": gates, "scale": _GATES_RATE})
        if self._captured is not None and self.device.type == "cuda":
            for group in optimizer.param_groups:
                group["capturable"] = True
        return optimizer

    @property
    def network_sizes(self) -> tuple[int, int]:
        """Trainable parameters of the generator, and of all discriminators."""
        return parameter_count(self.generator), sum(each.numel() for each in self._judging)

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
        neurons = self.config.neurons
        if neurons.training_neuron == "real":
            return 1.0
        return annealed_slope(step // self.steps_per_epoch, rate=neurons.slope_rate, cap=neurons.slope_cap)

    @property
    def current_slope(self) -> float:
        """The slope of the last iteration done: the one that the weights as they are belong to."""
        return self.slope_at(max(self.step - 1, 0))

    def train_step(self) -> Losses:
        """One iteration and its losses: `advance`, then `read_losses`."""
        self.advance()
        return self.read_losses()

    def advance(self) -> None:
        """One iteration: the discriminator's steps, then the generator's. No GPU is waited for.

        Each has fresh images and latents, or, without `fresh_batches`, all of an iteration share one batch
        of images and one of latents, and one forward pass of the generator.
        Raises DivergenceError where the slope has overflowed, and every 50 iterations as `read_losses` does, and
        NetworkError where a part of one's own fails.
        """
        if len(self._unread) == READ_EVERY_STEPS:
            self.read_losses()
        self._set_schedule()
        indices = self._batch_indices()
        if self._captured is None:
            with self._own_parts():
                values = self._iterate(len(indices), lambda place, shard: self._read_batch(indices[place], shard))
        else:
            for name, random in self._streams.items():
                self._seed(random, name)
            values = self._captured.run([self._read_batch(index, 0) for index in indices])
        self._unread.append(values)
        self.step += 1

    def read_losses(self) -> Losses:
        """The losses of the last iteration; one copy from the device for all that were not read.

        Raises DivergenceError, for the first iteration in which a loss or the logits were not finite, or a loss
        exceeded what the objective takes for training. The weights have changed by then, and are worth nothing.
        """
        if self._unread:
            rows = torch.stack(self._unread).tolist()
            self._unread.clear()
            for step, row in enumerate(rows, self.step - len(rows)):
                self._check(step, *row[:_CHECKED])
            discriminator_loss, penalty, generator_loss, *_ = rows[-1]
            gates = [sum(each) / len(rows) for each in zip(*(row[_CHECKED:] for row in rows), strict=True)]
            self.losses = Losses(discriminator_loss, generator_loss, penalty, self.current_slope, tuple(gates))
        if self.losses is None:
            raise ValueError("there was no iteration yet")
        return self.losses

    def _check(
        self, step: int, discriminator_loss: float, penalty: float, loss: float, surrogate: float, logits: float
    ) -> None:
        if not _is_sound(discriminator_loss, self._discriminator_loss_at_most):
            raise self._diverged(step, f"the discriminator's loss is {discriminator_loss:.4g}")
        if not math.isfinite(logits):  # thresholded, NaN is a black image of a finite loss
            raise self._diverged(step, "the generator's logits are not finite")
        if not math.isfinite(loss):
            raise self._diverged(step, f"the generator's loss is {loss:.4g}")
        if not math.isfinite(surrogate):
            raise self._diverged(step, "the generator's gradient estimate is not finite")

    def _iterate(self, count: int, batch_of: Callable[[int, int], Batch]) -> Tensor:
        """An iteration of `count` discriminator steps; `batch_of` gives that of a step, from 0, and a shard.

        Its values [5 + gates]: the discriminators' loss (the first that is not sound, or the last), the penalty
        within it, the generator's loss, its surrogate, the sum of its logits, and the share of each gate.
        """
        inputs: dict[int, StepInputs] = {}  # by shard
        found = None
        for place in range(count):
            values = self._discriminator_step(inputs, place, batch_of)
            if found is not None:
                is_sound = found[0].isfinite() & (found[0] <= self._discriminator_loss_at_most)
                values = torch.where(is_sound, values, found)
            found = values
        assert found is not None  # there is one step at least
        values = torch.cat([found, self._generator_step(inputs)])
        if self.ema is not None:
            self.ema.update(self.generator, self._ema_weight)
        return values

    @torch.no_grad()
    def grid_logits(self) -> Tensor:
        """The logits [64, C, H, W] of the run's fixed latents, as an exported generator would compute them.

        A class-conditional generator makes one of each class in turn.
        """
        with self._own_parts():
            logits = generator_logits(
                self.sampled_generator.eval(),
                self._grid_latents,
                self._grid_labels,
                slope=self.current_slope,
                inner_uniforms=self._grid_inner,
            )
        self.generator.train()
        return logits

    @torch.no_grad()
    def sample_grid(self, logits: Tensor | None = None) -> Tensor:
        """Images [64, C, H, W] of the `grid_logits`, which may be given."""
        neurons = OutputNeurons(self.config.neurons.neuron, slope=self.current_slope)
        images: Tensor = neurons(self.grid_logits() if logits is None else logits, self._grid_uniforms)
        return images

    @property
    def sampled_generator(self) -> nn.Module:
        """The EMA generator if there is one, its gates held at their rate, else the one that is trained."""
        if self.ema is None:
            return self.generator
        if not isinstance(self.ema.module, GatedGenerator):
            return self.ema.module
        sampled = copy.deepcopy(self.ema.module)  # whose biases are no part of the average
        hold_rates(sampled, self.config.inner.gate_rate or 1, self.current_slope, self.class_counts)
        return sampled

    def gate_shares(self, *, averaged: bool = True) -> GateShares | None:
        """How often each part of the generator that is sampled runs, or of the trained one; None without gates."""
        generator = self.sampled_generator if averaged else self.generator
        return gate_shares(generator, self.current_slope) if isinstance(generator, GatedGenerator) else None

    def state_dict(self) -> dict[str, Tensor]:
        """All state but the step, as named tensors."""
        tensors: dict[str, Tensor] = {}
        for name, module, optimizer in self._stateful():
            tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
            own = {} if optimizer is None else optimizer_tensors(optimizer)
            tensors |= {f"{name}_optimizer.{key}": value for key, value in own.items()}
        return tensors

    def load_state_dict(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go back to where `state_dict` gave these tensors, after `step` iterations."""
        for name, module, optimizer in self._stateful():
            load_module(module, name, tensors_under(tensors, f"{name}."))
            if optimizer is not None:
                load_optimizer(optimizer, module, tensors_under(tensors, f"{name}_optimizer."))
        self.step = step
        self._unread.clear()

    def _stateful(self) -> list[tuple[str, nn.Module, Optimizer | None]]:
        """What state is kept of: a name, a module, and the optimizer of its parameters where it has one."""
        stateful: list[tuple[str, nn.Module, Optimizer | None]] = [
            ("generator", self.generator, self.generator_optimizer),
            ("discriminator", self.discriminators, self.discriminator_optimizer),
            ("estimator", self.estimator, self.estimator.optimizer),
            ("inner", self.inner, self.inner.optimizer),
        ]
        return stateful if self.ema is None else [*stateful, (EMA_NAME, self.ema.module, None)]

    def _read_batch(self, index: int, shard: int) -> Batch:
        return self.batches.batch(index, shard), self.batches.labels(index, shard)

    def _inputs(self, shard: int, batch: Batch, before: StepInputs | None) -> StepInputs:
        """What a shard's discriminator step on a batch works on, after that `before` in the same iteration.

        The generator's step works on what the last of them did.
        """
        images, labels = batch
        if before is None:
            random = self._random("step", shard)
            draw_transform = self._transforms(shard)
            passed = None if self.config.objective.fresh_batches else self._new_pass(random, labels)
        else:
            random, draw_transform, passed = before.random, before.draw_transform, before.passed
        real = _transformed(images, draw_transform)
        return StepInputs(real, labels, passed, self._slope, random, draw_transform)

    def _random(self, purpose: str, shard: int) -> torch.Generator:
        """The stream of this iteration for a purpose; each shard has its own."""
        name = purpose + ("" if self.shards.count == 1 else f"/{shard} of {self.shards.count}")
        random = self._streams.setdefault(name, torch.Generator(self.device))
        return self._seed(random, name)

    def _seed(self, random: torch.Generator, name: str) -> torch.Generator:
        return random.manual_seed(derived_seed(self.config.run.seed, name, self.step))

    def _finite_slope(self) -> float:
        """The slope of this iteration. Raises DivergenceError where it is too large for a float."""
        slope = self.slope_at(self.step)
        if not math.isfinite(slope):
            raise DivergenceError(
                f"the slope overflowed at step {self.step}; bound it with --slope-cap, or lower --slope-rate"
            )
        return slope

    def _batch_indices(self) -> range | list[int]:
        """Which batch of images each discriminator step of this iteration sees."""
        objective = self.config.objective
        steps, bursts = objective.discriminator_steps, objective.discriminator_bursts
        count = discriminator_steps_in(self.step, steps=steps, bursts=bursts)
        if not objective.fresh_batches:
            return [self.step] * count
        first = discriminator_steps_before(self.step, steps=steps, bursts=bursts)
        return range(first, first + count)

    def _transforms(self, shard: int) -> Callable[[int], ImageTransform | None]:
        """Draws a shard's transforms of images, one after another; see `StepInputs.draw_transform`."""
        if self.augmentation is None:
            return lambda count: None
        return partial(self.augmentation.draw, random=self._random("augmentation", shard))

    @contextmanager
    def _own_parts(self) -> Iterator[None]:
        """Let parts of one's own draw from torch's global generator, and name them in what they raise."""
        names = [each.name for each in self._own_networks]
        for name, ours in (
            (self.config.objective.objective, OBJECTIVES),
            (self.config.neurons.estimator, ESTIMATORS),
            (self.config.inner.estimator, ESTIMATORS),
        ):
            names += [] if name is None or name in ours else [name]
        if not names:
            yield
            return
        try:
            with global_generator():
                yield
        except UserError:
            raise
        except Exception as error:  # of code that is not ours
            raise NetworkError(
                f"a part of your own ({', '.join(dict.fromkeys(names))}) fails at step {self.step} "
                f"({type(error).__name__}: {first_line(error)})"
            ) from error

    def _seed_own_networks(self, purpose: str, shard: int) -> None:
        """Let what networks of one's own draw themselves, as Dropout does, follow from the step."""
        if self._own_networks:
            name = f"own networks/{purpose}/{shard} of {self.shards.count}"
            torch.manual_seed(derived_seed(self.config.run.seed, name, self.step))

    def _discriminator_step(
        self, inputs: dict[int, StepInputs], place: int, batch_of: Callable[[int, int], Batch]
    ) -> Tensor:
        """One step on a batch, by shard; the loss of the discriminators, and the penalty within it, [2]."""

        def loss_of(shard: int) -> tuple[Tensor, Tensor]:
            self._seed_own_networks(f"discriminator {place}", shard)
            inputs[shard] = self._inputs(shard, batch_of(place, shard), inputs.get(shard))
            return self._discriminators_loss(inputs[shard])

        self._let_judges_train(True)
        values = self._backward(loss_of, [self.discriminators])
        self.discriminator_optimizer.step()
        if self.objective.clips_weights:
            clip_weights(self.discriminators, self.config.objective.clip_value)
        return values

    def _backward(self, loss_of: ShardLoss, trained: list[nn.Module]) -> Tensor:
        """See `ShardMeans.backward`."""
        modules = [module for _, module, _ in self._stateful()]
        return self.shards.backward(loss_of, trained, modules)

    def _discriminators_loss(self, inputs: StepInputs) -> tuple[Tensor, Tensor]:
        """The loss of all discriminators, and that with the penalty within it, [2]."""
        with torch.no_grad():
            fake = _transformed(self._fake_images(inputs), inputs.draw_transform)  # [B, C, H, W]
        losses, penalties = zip(
            *[self._discriminator_loss(each, fake, inputs) for each in self.discriminators], strict=True
        )
        penalty = torch.stack(penalties).sum()
        loss = torch.stack(losses).sum() + penalty
        return loss, torch.stack([loss, penalty])

    def _discriminator_loss(
        self, discriminator: AnyDiscriminator, fake: Tensor, inputs: StepInputs
    ) -> tuple[Tensor, Tensor]:
        """The loss proper of one discriminator, and the weighted penalty of its gradient."""
        weight, real, labels = self.config.objective.penalty_weight, inputs.real, inputs.labels
        of_both = partial(_of_both, real=real, fake=fake, labels=labels, at_once=not discriminator.mixes_rows)
        if self.objective.compares_pairs:
            logits, gradients = of_both(discriminator.logits_and_input_gradient)
            return self.objective.discriminator_loss(*logits), weight * gradient_square(*gradients)
        (logits,) = of_both(lambda *images: (discriminator(*images),))
        loss = self.objective.discriminator_loss(*logits)
        if not self.objective.penalizes_gradient:
            return loss, torch.zeros_like(loss)
        mix = torch.rand(len(real), 1, 1, 1, generator=inputs.random, device=self.device)
        return loss, weight * gradient_penalty(discriminator, real, fake, mix, labels)

    def _let_judges_train(self, do_train: bool) -> None:
        """Let gradients reach the discriminators' parameters or not, but for those that were frozen before."""
        for parameter in self._judging:
            parameter.requires_grad_(do_train)

    def _generator_step(self, inputs: dict[int, StepInputs]) -> Tensor:
        """One step on what the discriminators' last one worked on; the values of `_generator_loss`."""
        self._let_judges_train(False)
        trained: list[nn.Module] = [self.generator, self.estimator, self.inner]

        def loss_of(shard: int) -> tuple[Tensor, Tensor]:
            self._seed_own_networks("generator", shard)
            return self._generator_loss(inputs[shard])

        values = self._backward(loss_of, trained)
        self.generator_optimizer.step()
        for optimizer in (self.estimator.optimizer, self.inner.optimizer):
            if optimizer is not None:
                optimizer.step()
        return values

    def _generator_loss(self, inputs: StepInputs) -> tuple[Tensor, Tensor]:
        """What to call backward on; and [3 + gates]: the loss, the former, the sum of the logits, the gates."""
        passed = self._pass_of(inputs)
        transform = inputs.draw_transform(len(inputs.real))
        losses = ImageLosses(
            self.discriminators, self.objective, inputs.real, labels=inputs.labels, transform=transform
        )
        estimate, logits, bits = self.inner(
            passed,
            inputs.slope,
            lambda logits: self.estimator(logits, inputs.slope, losses, inputs.random),
            LogitLosses(self.config.neurons, losses, inputs.slope, inputs.random),
            inputs.random,
        )
        surrogate, penalty = estimate.surrogate, self.inner.penalty(passed.logits, inputs.slope)
        shares = bits[:, :0].mean(dim=0)
        if penalty is not None:
            surrogate, shares = surrogate + penalty, bits.mean(dim=0)
        values = torch.stack([value.detach() for value in (estimate.value, surrogate, logits.sum())])
        return surrogate, torch.cat([values, shares.to(values.dtype)])

    def _set_schedule(self) -> None:
        """The slope, learning rates and averaging weight of this step: functions of it alone."""
        self._slope = self._number("slope", self._finite_slope())
        if self.ema is not None:
            self._ema_weight = self._number("ema weight", self.ema.weight_at(self.step))
        own = self.config.optimization
        factor = learning_rate_factor(self.step, total=self.total_steps, decay=own.learning_rate_decay)
        rates = (own.learning_rate, own.discriminator_learning_rate)
        exact = torch.float64 if self.device.type == "cpu" else torch.float32  # as their kernels take it
        for optimizer, rate in zip((self.generator_optimizer, self.discriminator_optimizer), rates, strict=True):
            for place, group in enumerate(optimizer.param_groups):
                own_rate = factor * rate * group.get("scale", 1)
                group["lr"] = self._number(f"rate {id(optimizer)} {place}", own_rate, dtype=exact)

    def _number(self, name: str, value: float, *, dtype: torch.dtype = torch.float32) -> Number:
        """The value; where iterations are captured, in a tensor that stays where it is."""
        if self._captured is None:
            return value
        if name not in self._scalars:
            self._scalars[name] = torch.empty((), dtype=dtype, device=self.device)
        return self._scalars[name].fill_(value)

    def _new_pass(self, random: torch.Generator, labels: Tensor | None) -> InnerPass:
        """The generator's pass for fresh latents, and for labels [B] where there are classes."""
        own = self.config.optimization
        size = own.batch_size // own.shards, self.config.networks.latent_size
        return inner_pass(self.generator, torch.randn(size, generator=random, device=self.device), labels)

    def _pass_of(self, inputs: StepInputs) -> InnerPass:
        return self._new_pass(inputs.random, inputs.labels) if inputs.passed is None else inputs.passed

    def _fake_images(self, inputs: StepInputs) -> Tensor:
        """Images of the inputs' pass, or of fresh latents; the noise of stochastic neurons is always fresh."""
        passed = self._pass_of(inputs)
        logits = passed.outputs(self.inner.draw(passed, inputs.slope, inputs.random))
        neurons = OutputNeurons(self.config.neurons.training_neuron, slope=inputs.slope)
        uniforms = draw_uniforms(logits, inputs.random) if neurons.needs_uniforms else None
        images: Tensor = neurons(logits, uniforms)
        return images

    def _diverged(self, step: int, problem: str) -> DivergenceError:
        return DivergenceError(
            f"{problem} at step {step}, epoch {step // self.steps_per_epoch + 1}; try a lower --learning-rate, "
            "a lower --slope-cap, or --objective wgan-gp"
        )


def _is_sound(loss: float, at_most: float) -> bool:
    return math.isfinite(loss) and loss <= at_most


def _transformed(images: Tensor, draw_transform: Callable[[int], ImageTransform | None]) -> Tensor:
    transform = draw_transform(len(images))
    return images if transform is None else transform(images)


def _of_both(
    judge: Callable[..., tuple[Tensor, ...]], real: Tensor, fake: Tensor, labels: Tensor | None, *, at_once: bool
) -> list[tuple[Tensor, ...]]:
    """(of real images, of fake ones) for each tensor that `judge` gives of images and their labels."""
    if not at_once:
        return list(zip(judge(real, labels), judge(fake, labels), strict=True))
    judged = judge(torch.cat([real, fake]), None if labels is None else torch.cat([labels, labels]))
    return [both.chunk(2) for both in judged]


def resolve_device(name: str, world: World = ALONE) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one. Raises DeviceError if it is not there.

    Of several processes on a machine each has a GPU of its own. Raises ConfigError where they would share one.
    """
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world.size > 1 else 1
    if local_size > 1 and re.fullmatch(r"(?!cpu)[a-z]+:\d+", name):
        raise ConfigError(
            f"device is {name!r}, which {local_size} processes would share; use "
            f"{name.partition(':')[0]}: each process then has its own"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and world.size > 1:
        name = f"cuda:{world.local_rank}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # what names no device, as the recording of a graph, is of this one
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = re.split(r"[.,:;(]\s", str(error).strip().splitlines()[0])[0]  # a page may follow
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        there = ["cpu", *(f"{accelerator}:{index}" for index in range(torch.accelerator.device_count()))]
        raise DeviceError(
            f"device {name!r} cannot be used ({reason}); use one of {', '.join(there)}, or auto"
        ) from error
    # Convolutions in float32, each by one algorithm, as products are by default.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    return device
