"""The networks of a run, and their sizes."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..common import entry_points
from ..common.errors import ConfigError
from ..common.image_shape import ImageShape
from ..config.training import DISCRIMINATORS, NETWORKS, TrainingConfig
from .discriminators import AnyDiscriminator, Discriminators, build_discriminator
from .gates import GatedGenerator
from .generators import Generator, build_generator
from .hidden import HiddenBinaryGenerator, split_at_last_rectifier
from .inner import InnerGenerator
from .own import NetworkSource, OwnDiscriminator, OwnGenerator, built
from .refiner import RefinedGenerator, build_refiner

AnyGenerator = Generator | InnerGenerator | RefinedGenerator | OwnGenerator
BuiltGenerator = Generator | InnerGenerator | RefinedGenerator
"""Those of bgan's networks."""


def configured_generator(
    config: TrainingConfig, image_shape: ImageShape, class_count: int, given: NetworkSource | None = None
) -> AnyGenerator:
    """The generator that the settings ask for, untrained; `class_count` 0 is without classes.

    Raises ConfigError where the settings name one of Python that is not `given`, or an entry point that is broken.
    """
    own = config.networks
    if own.network in NETWORKS:
        return _generator(config, image_shape, class_count)
    source, what = _source(entry_points.NETWORKS, own.network, given, "generator")
    sizes = {"image_shape": image_shape, "latent_size": own.latent_size, "class_count": class_count}
    return OwnGenerator(built(source, what, **sizes), own.network, image_shape, own.latent_size, class_count)


def _generator(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> BuiltGenerator:
    own, inner = config.networks, config.inner

    def build(width: float) -> Generator:
        return build_generator(
            own.network,
            image_shape,
            own.latent_size,
            class_count=class_count,
            norm=own.generator_norm,
            initialization=own.initialization,
            width=width,
        )

    if inner.gates is not None:
        assert inner.gate_neuron is not None  # they follow from gates
        assert inner.gate_by is not None
        assert inner.gate_rate is not None
        trunk, *parts = [build(own.width / inner.gates) for _ in range(inner.gates + 1)]
        return GatedGenerator(trunk, parts, neuron=inner.gate_neuron, by=inner.gate_by, rate=inner.gate_rate)
    generator = build(own.width)
    if own.refine is not None:
        return RefinedGenerator(generator, build_refiner(image_shape))
    if inner.hidden_neuron is None:
        return generator
    return HiddenBinaryGenerator(generator, neuron=inner.hidden_neuron, hidden_shape=_hidden_shape(generator))


def _hidden_shape(generator: Generator) -> tuple[int, ...]:
    """The shape of a generator's last hidden layer, without the batch."""
    layers = copy.deepcopy(split_at_last_rectifier(generator.layers)[0]).eval().to("meta")
    hidden: Tensor = layers(torch.empty(1, generator.latent_size + generator.class_count, device="meta"))
    return tuple(hidden.shape[1:])


def output_generator(generator: BuiltGenerator) -> Generator:
    """The generator whose output bias every image has: a gated one's trunk, or what is refined."""
    if isinstance(generator, GatedGenerator):
        return generator.trunk
    if isinstance(generator, HiddenBinaryGenerator):
        return generator.generator
    if isinstance(generator, RefinedGenerator):
        return generator.base
    assert isinstance(generator, Generator)
    return generator


def configured_discriminators(
    config: TrainingConfig, image_shape: ImageShape, class_count: int, given: Sequence[NetworkSource] = ()
) -> Discriminators:
    """The discriminators that the settings ask for, untrained; raises ConfigError as `configured_generator`.

    Those `given` stand in the order of their names in the settings.
    """
    own = config.networks
    kind = {"norm": own.discriminator_norm, "initialization": own.initialization}
    left = list(given)

    def build(name: str) -> AnyDiscriminator:
        if name in DISCRIMINATORS:
            return build_discriminator(name, image_shape, class_count=class_count, **kind)
        is_left = entry_points.is_given(name) and left
        found = left.pop(0) if is_left else None
        source, what = _source(entry_points.DISCRIMINATORS, name, found, "discriminators")
        sizes = {"image_shape": image_shape, "class_count": class_count}
        return OwnDiscriminator(built(source, what, **sizes), name, class_count)

    return Discriminators(map(build, own.discriminator.split("+")))


def _source(group: str, name: str, given: NetworkSource | None, argument: str) -> tuple[NetworkSource, str]:
    """What a network is made from, and what errors call it."""
    if not entry_points.is_given(name):
        source = entry_points.load(group, name)
        if not callable(source):
            raise ConfigError(
                f"{entry_points.shown(group, name)} is of type {type(source).__name__}, not what builds a network"
            )
        return source, entry_points.shown(group, name)
    if given is None:
        raise ConfigError(
            f"{name} was given from Python: give it again, as in Run.open(path, {argument}=...) of bgan.trainer, "
            f"or add it as an entry point of {group}"
        )
    return given, f"the network {name}"


def network_sizes(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> tuple[int, int]:
    """Trainable parameters of the generator, and of all discriminators; takes no memory for those of ours."""
    own = config.networks
    names = [own.network, *own.discriminator.split("+")]
    are_ours = set(names) <= {*NETWORKS, *DISCRIMINATORS}
    with torch.device("meta") if are_ours else nullcontext():
        generator = configured_generator(config, image_shape, class_count)
        discriminators = configured_discriminators(config, image_shape, class_count)
    return parameter_count(generator), parameter_count(discriminators)


def parameter_count(module: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def sizes_text(
    config: TrainingConfig, image_shape: ImageShape, class_count: int, sizes: tuple[int, int] | None = None
) -> str:
    """One line about the images and the sizes of the networks, where these are not known those that are built."""
    generator, discriminators = sizes or network_sizes(config, image_shape, class_count)
    classes = f" of {class_count} classes" if class_count else ""
    return (
        f"images {'x'.join(map(str, image_shape))}{classes}: generator {config.networks.network}, "
        f"{_trained_text(config)}{generator:,} parameters; discriminator {config.networks.discriminator}, "
        f"{discriminators:,}"
    )


def _trained_text(config: TrainingConfig) -> str:
    """The neurons within the generator, or the run whose refiner alone is trained, in words."""
    inner = config.inner
    if config.networks.refine is not None:
        return f"a refiner of {config.networks.refine} with "
    if inner.gates is not None:
        return f"gates {inner.gates} at {inner.gate_rate:g}, "
    return "" if inner.hidden_neuron is None else f"hidden neurons {inner.hidden_neuron}, "
