"""How large the networks of a training are."""

from __future__ import annotations

import torch

from .config import TrainingConfig
from .networks import ImageShape, build_discriminators, build_generator, parameter_count


def network_sizes(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> tuple[int, int]:
    """Trainable parameters of the generator and of the discriminators together; no memory is taken for them."""
    assert config.discriminator is not None
    with torch.device("meta"):
        generator = build_generator(
            config.network, image_shape, config.latent_size, class_count=class_count, norm=config.generator_norm
        )
        discriminators = build_discriminators(
            config.discriminator, image_shape, class_count=class_count, norm=config.discriminator_norm
        )
    return parameter_count(generator), parameter_count(discriminators)


def sizes_text(config: TrainingConfig, image_shape: ImageShape, class_count: int) -> str:
    """One line that says them."""
    generator, discriminators = network_sizes(config, image_shape, class_count)
    classes = f" of {class_count} classes" if class_count else ""
    return (
        f"images {'x'.join(map(str, image_shape))}{classes}: generator {config.network}, {generator:,} "
        f"parameters; discriminator {config.discriminator}, {discriminators:,}"
    )
