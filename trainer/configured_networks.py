"""The networks that a configuration names, freshly initialized."""

from __future__ import annotations

from .config import TrainingConfig
from .image_shape import ImageShape
from .networks import Discriminators, Generator, build_discriminators, build_generator


def configured_generator(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> Generator:
    """The generator of images of that shape, and of so many classes."""
    return build_generator(
        config.network,
        image_shape,
        config.latent_size,
        class_count=class_count,
        norm=config.generator_norm,
        initialization=config.initialization,
    )


def configured_discriminators(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> Discriminators:
    """The discriminators of images of that shape, and of so many classes."""
    assert config.discriminator is not None
    return build_discriminators(
        config.discriminator,
        image_shape,
        class_count=class_count,
        norm=config.discriminator_norm,
        initialization=config.initialization,
    )
