"""What an integer generator's file computes, in numpy's integers alone."""

import numpy as np
from numpy.typing import NDArray

from .integer import IntegerGenerator, outputs, quantized_latents
from .products import images_of


def reference_images(
    generator: IntegerGenerator,
    latents: NDArray[np.float32],
    labels: NDArray[np.int64] | None = None,
    uniforms: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Images [N, C, H, W] of latents [N, Z] and, where it takes them, labels [N] and uniforms [N, C, H, W]."""
    values, chosen = quantized_latents(latents), labels
    for layer in generator.layers[:-1]:
        values, chosen = outputs(layer, values, chosen).astype(np.uint8), None
    last = images_of(outputs(generator.layers[-1], values, chosen), generator.image_shape)
    is_on: NDArray[np.bool_] = last > 0 if generator.table is None else uniforms < generator.table[last]
    return is_on.astype(np.uint8)
