"""A generator and a critic that bgan has never seen: residual ones with attention, as a stranger writes them."""

import torch
import torch.nn.functional as F
from torch import nn

import bgan.trainer as bgan


class Attention(nn.Module):
    def __init__(self, channels, heads=2):
        super().__init__()
        self.norm = nn.GroupNorm(2, channels)
        self.heads, self.qkv, self.out = heads, nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(b, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return x + self.out(mixed).transpose(1, 2).reshape(b, c, h, w)


class Block(nn.Module):
    def __init__(self, channels, *, norm):
        super().__init__()
        layer = nn.BatchNorm2d if norm else lambda channels: nn.GroupNorm(2, channels)
        self.layers = nn.Sequential(
            layer(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.Dropout2d(0.1)
        )

    def forward(self, x):
        return x + self.layers(x)


class AttentiveGenerator(nn.Module):
    """Latents, and classes where it has any, to logits of 1x8x8."""

    def __init__(self, latent_size, class_count=0, channels=8):
        super().__init__()
        self.channels = channels
        self.first = nn.Linear(latent_size, channels * 16)
        self.of_class = nn.Embedding(class_count, channels * 16) if class_count else None
        self.body = nn.Sequential(Block(channels, norm=True), Attention(channels), nn.Upsample(scale_factor=2))
        self.last = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, latents, labels=None):
        x = self.first(latents)
        if self.of_class is not None:
            x = x + self.of_class(labels)
        return self.last(self.body(x.view(-1, self.channels, 4, 4)))


class AttentiveCritic(nn.Module):
    """Images of 1x8x8 to logits [B, 1]."""

    def __init__(self, class_count=0, channels=8):
        super().__init__()
        self.first = nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, channels, 3, stride=2, padding=1))
        self.body = nn.Sequential(Block(channels, norm=False), Attention(channels), nn.SiLU())
        self.of_class = nn.Embedding(class_count, channels) if class_count else None
        self.last = nn.Linear(channels, 1)

    def forward(self, images, labels=None):
        features = self.body(self.first(images)).mean(dim=(2, 3))
        if self.of_class is not None:
            features = features * (1 + self.of_class(labels))
        return self.last(features)


def digits_like(count=96, seed=0):
    """Bars and corners of 1x8x8, with a class each."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = (torch.rand(count, 8, 8, generator=generator) < 0.05).to(torch.uint8)
    images[labels == 0, 3:5] = 1
    images[labels == 1, :, 3:5] = 1
    images[labels == 2, :4, :4] = 1
    return images.numpy(), labels.numpy()


def bars(seed=0):
    """The data set of these images."""
    return bgan.BinaryDataset.from_arrays(*digits_like(seed=seed), name="bars")


def tiny_config(**settings):
    """The settings of a training of three iterations on them."""
    return bgan.TrainingConfig.resolve(
        **{"batch_size": 32, "latent_size": 6, "epochs": 1, "discriminator_steps": 1, **settings}
    )
