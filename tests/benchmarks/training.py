"""A generator iteration against the bare time of its own matrix products."""

import torch

from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.data.dataset import BinaryDataset
from bgan.trainer.training.trainer import Trainer

from .measure import Figure, in_turns

BATCH, LATENT, PIXELS = 64, 128, 784


def measure():
    """MLP, DBN, WGAN-GP, batch 64: five discriminator steps and one generator step."""
    images = (torch.rand(60_000, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.2).to(torch.uint8)
    dataset = BinaryDataset("random", images, torch.zeros(len(images), dtype=torch.int64))
    trainer = Trainer(TrainingConfig.resolve(), dataset, torch.device("cpu"))
    products = _Products()
    in_turns(trainer.train_step, products.run, rounds=3)
    step, bare = in_turns(trainer.train_step, products.run, rounds=15, repeats=6)
    return [
        Figure("training iteration", 1e3 * step, "ms"),
        Figure("its matrix products alone", 1e3 * bare, "ms"),
        Figure("training / products", step / bare, "ratio", "at most 1.5"),
    ]


class _Products:
    """The matrix products of one iteration, each as (left, right) with the layout that training uses."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        sizes_g = [(LATENT, 1024), (1024, PIXELS)]
        sizes_d = [(PIXELS, 512), (512, 256), (256, 1)]
        generator_forward = self._forward(sizes_g, BATCH)
        discriminator = self._forward(sizes_d, 2 * BATCH) + self._backward(sizes_d, 2 * BATCH)
        penalty = self._forward(sizes_d[:2], BATCH)  # the slopes at the interpolates
        # g = ((w M2) W2 M1) W1, its two weight gradients, and the two gradients of its left factors.
        for inputs, outputs in sizes_d[:2]:
            left, weight = self._random(BATCH, outputs), self._random(outputs, inputs)
            incoming = self._random(BATCH, inputs)
            penalty += [(left, weight), (left.t(), incoming), (incoming, weight.t())]
        generator_step = generator_forward + self._forward(sizes_d, BATCH)
        generator_step += [
            (self._random(BATCH, outputs), self._random(outputs, inputs)) for inputs, outputs in sizes_d
        ]
        generator_step += self._backward(sizes_g, BATCH)
        self._pairs = 5 * (generator_forward + discriminator + penalty) + generator_step

    def run(self) -> None:
        with torch.no_grad():
            for left, right in self._pairs:
                torch.mm(left, right)

    def _forward(self, sizes, rows):
        return [(self._random(rows, inputs), self._random(outputs, inputs).t()) for inputs, outputs in sizes]

    def _backward(self, sizes, rows):
        """Weight gradients of all layers, and input gradients of all but the first."""
        weights = [(self._random(rows, outputs).t(), self._random(rows, inputs)) for inputs, outputs in sizes]
        return weights + [
            (self._random(rows, outputs), self._random(outputs, inputs)) for inputs, outputs in sizes[1:]
        ]

    @staticmethod
    def _random(*shape):
        return torch.randn(*shape)
