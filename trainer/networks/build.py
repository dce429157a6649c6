"""The networks of a run, and their sizes."""

import torch
from torch import nn

from ..common.image_shape import ImageShape
from ..config.training import TrainingConfig
from .discriminators import Discriminators, build_discriminator
from .generators import Generator, build_generator


def configured_generator(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> Generator:
    """The generator that the settings ask for, untrained; `class_count` 0 is without classes."""
    own = config.networks
    kind = {"norm": own.generator_norm, "initialization": own.initialization}
    return build_generator(own.network, image_shape, own.latent_size, class_count=class_count, **kind)


def configured_discriminators(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> Discriminators:
    """The discriminators that the settings ask for, untrained."""
    own = config.networks
    kind = {"norm": own.discriminator_norm, "initialization": own.initialization}
    return Discriminators(
        build_discriminator(name, image_shape, class_count=class_count, **kind)
        for name in own.discriminator.split("+")
    )


def network_sizes(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> tuple[int, int]:
    """Trainable parameters of the generator, and of all discriminators; takes no memory for them."""
    with torch.device("meta"):
        generator = configured_generator(config, image_shape, class_count)
        discriminators = configured_discriminators(config, image_shape, class_count)
    return parameter_count(generator), parameter_count(discriminators)


def parameter_count(module: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def sizes_text(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> str:
    """One line about the images and the sizes of the networks."""
    generator, discriminators = network_sizes(config, image_shape, class_count)
    classes = f" of {class_count} classes" if class_count else ""
    return (
        f"images {'x'.join(map(str, image_shape))}{classes}: generator {config.networks.network}, {generator:,} "
        f"parameters; discriminator {config.networks.discriminator}, {discriminators:,}"
    )
