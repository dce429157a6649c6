"""How large the networks of a training are."""

from __future__ import annotations

import torch

from .config import TrainingConfig
from .configured_networks import configured_discriminators, configured_generator
from .image_shape import ImageShape
from .networks import parameter_count


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
        f"images {'x'.join(map(str, image_shape))}{classes}: generator {config.network}, {generator:,} "
        f"parameters; discriminator {config.discriminator}, {discriminators:,}"
    )
