"""A generator whose last hidden layer is binary, the case of Bengio, Leonard and Courville 2013."""

from math import prod

import torch
from torch import Tensor, nn

from .generators import Generator
from .inner import InnerGenerator, InnerPass


class HiddenBinaryGenerator(InnerGenerator):
    """A generator with binary neurons in place of its last rectifier."""

    def __init__(self, generator: Generator, *, neuron: str, hidden_shape: tuple[int, ...]) -> None:
        """`hidden_shape` is that of the layer, without the batch."""
        super().__init__(neuron)
        self.image_shape, self.class_count = generator.image_shape, generator.class_count
        self.latent_size, self.hidden_shape = generator.latent_size, hidden_shape
        self.inner_count = prod(hidden_shape)
        self.generator = generator

    def inner_pass(self, latents: Tensor, labels: Tensor | None = None) -> InnerPass:
        """See `InnerGenerator`; the inner neurons are those of the hidden layer."""
        before, after = split_at_last_rectifier(self.generator.layers)
        hidden = before(self.generator.inputs(latents, labels))

        def outputs(bits: Tensor) -> Tensor:
            logits: Tensor = after(torch.unflatten(bits, 1, self.hidden_shape))
            return logits

        return InnerPass(hidden.flatten(1), outputs)


def split_at_last_rectifier(layers: nn.Sequential) -> tuple[nn.Sequential, nn.Sequential]:
    """The layers before the last ReLU, and those after it."""
    every = list(layers)
    place = max(index for index, layer in enumerate(every) if isinstance(layer, nn.ReLU))
    return nn.Sequential(*every[:place]), nn.Sequential(*every[place + 1 :])
