"""A variational autoencoder with binary latents: bgan's neurons and estimators in a network of one's own.

python docs/examples/binary_vae.py --epochs 30
python docs/examples/binary_vae.py --epochs 30 --estimator disarm

Pixels that are independent of each other, each with its mean over the images, have 295 nats an image; after 30
epochs the neurons' own gradient (reinmax) has 161 and disarm 170, both of one seed.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

from bgan.trainer import BinaryNeurons, gradient_estimator, load_dataset

BITS = 32


def train(epochs: int = 20, estimator: str | None = None, *, seed: int = 0) -> list[float]:
    """Train on the bundled digits; returns the mean bound on -log p(x) in each epoch, in nats an image."""
    torch.manual_seed(seed)
    images = load_dataset("digits").images[torch.arange(1536)].float().flatten(1)  # [N, 784] of 0 and 1
    encoder = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, BITS))
    decoder = nn.Sequential(nn.Linear(BITS, 256), nn.ReLU(), nn.Linear(256, 784))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    neurons = BinaryNeurons("sbn", estimator="reinmax")
    estimate = None if estimator is None else gradient_estimator(estimator, BITS)
    bounds = []
    for _ in range(epochs):
        total = 0.0
        for batch in images[torch.randperm(len(images))].split(64):

            def losses(bits: torch.Tensor, batch: torch.Tensor = batch) -> torch.Tensor:
                return F.binary_cross_entropy_with_logits(decoder(bits), batch, reduction="none").sum(dim=1)

            logits = encoder(batch)  # of q(bits | image); the prior is a fair coin for each bit
            bits = neurons(logits)
            p = torch.sigmoid(logits)
            divergence = (p * F.logsigmoid(logits) + (1 - p) * F.logsigmoid(-logits)).sum(1) + BITS * 0.6931472
            bound = (losses(bits if estimate is None else bits.detach()) + divergence).mean()
            surrogate = bound
            if estimate is not None:  # the encoder's gradient is the estimator's
                (gradient,) = torch.autograd.grad(estimate(logits, losses).surrogate, logits)
                surrogate = bound + (gradient * logits).sum()
            optimizer.zero_grad()
            surrogate.backward()
            optimizer.step()
            if estimate is not None:
                estimate.step()
            total += bound.item() * len(batch)
        bounds.append(total / len(images))
    return bounds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--estimator")
    arguments = parser.parse_args()
    for epoch, value in enumerate(train(arguments.epochs, arguments.estimator), 1):
        print(f"epoch {epoch}: {value:.1f} nats")  # noqa: T201
