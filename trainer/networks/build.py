"""The networks that a configuration asks for, and their sizes."""

from __future__ import annotations

import torch

from ..common.image_shape import ImageShape
from ..config.training import TrainingConfig
from .discriminators import Discriminators, build_discriminators
from .generators import Generator, build_generator
from .layers import parameter_count


def configured_generator(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> Generator:
    """The generator of images of that shape, and of so many classes."""
    return build_generator(
        config.networks.network,
        image_shape,
        config.networks.latent_size,
        class_count=class_count,
        norm=config.networks.generator_norm,
        initialization=config.networks.initialization,
    )


def configured_discriminators(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> Discriminators:
    """The discriminators of images of that shape, and of so many classes."""
    assert config.networks.discriminator is not None
    return build_discriminators(
        config.networks.discriminator,
        image_shape,
        class_count=class_count,
        norm=config.networks.discriminator_norm,
        initialization=config.networks.initialization,
    )


def network_sizes(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> tuple[int, int]:
    """Trainable parameters of the generator and of the discriminators together; no memory is taken for them."""
    with torch.device("meta"):
        generator = configured_generator(config, image_shape, class_count)
        discriminators = configured_discriminators(config, image_shape, class_count)
    return parameter_count(generator), parameter_count(discriminators)


def sizes_text(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> str:
    """One line that says them."""
    generator, discriminators = network_sizes(config, image_shape, class_count)
    classes = f" of {class_count} classes" if class_count else ""
    return (
        f"images {'x'.join(map(str, image_shape))}{classes}: generator {config.networks.network}, {generator:,} "
        f"parameters; discriminator {config.networks.discriminator}, {discriminators:,}"
    )
