"""A small classifier of binary images: features to measure with, and class probabilities.

It is trained once on a data set's own training images and kept in a cache, with its digest. bgan comes
with those of MNIST and of the bundled digits, in a folder laid out as the cache.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..common.console import counted
from ..common.errors import CheckpointError
from ..common.rng import global_generator
from ..common.tensor_files import load_tensors, save_tensors
from ..data.packed import ProgressCallback

SHIPPED = Path(__file__).with_name("shipped")
"""What comes with bgan, named as in the cache: classifiers and floors."""
TRAINING = "training the classifier"
FEATURES = 128
_VERSION = 1  # of architecture and training: another one is trained again
_CHANNELS = 32  # of the first convolution
_BATCH = 128
_STEPS_AT_MOST = 2000
_EPOCHS_AT_MOST = 40
_DROPOUT = 0.4
_LEARNING_RATE = 2e-3
_ROWS = 2000


class Describer(Protocol):
    """What measures images by the features and classes that it finds."""

    def describe(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(features [N, D], class probabilities [N, K]) of uint8 [N, C, H, W] images."""


class Classifier(nn.Module):
    """Two strided convolutions and two dense layers: images [B, C, H, W] in {0, 1} to class logits [B, K]."""

    def __init__(self, shape: tuple[int, ...], classes: int, *, channels: int = _CHANNELS) -> None:
        super().__init__()
        planes, height, width = shape
        pixels = math.ceil(height / 4) * math.ceil(width / 4)
        self.body = nn.Sequential(
            nn.Conv2d(planes, channels, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * channels * pixels, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(_DROPOUT), nn.Linear(FEATURES, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Class logits [B, K]."""
        logits: Tensor = self.head(self.body(images))
        return logits

    @torch.no_grad()
    def describe(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(features [N, 128], class probabilities [N, K]) of uint8 [N, C, H, W] images."""
        features, probabilities = [], []
        device = next(self.parameters()).device
        for chunk in torch.split(torch.from_numpy(images), _ROWS):
            features.append(self.body(chunk.to(device).float()))
            probabilities.append(F.softmax(self.head(features[-1]), dim=1))
        return torch.cat(features).cpu().numpy(), torch.cat(probabilities).cpu().numpy()


def train_classifier(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    classes: int,
    steps_at_most: int = _STEPS_AT_MOST,
    seed: int = 0,
    progress: ProgressCallback = lambda done, total: None,
) -> Classifier:
    """Train by Adam with a one-cycle learning rate, for 40 epochs at most.

    The same arguments give the same weights on one machine. `progress` is called after each step.
    """
    steps = min(steps_at_most, math.ceil(_EPOCHS_AT_MOST * len(images) / _BATCH))
    with global_generator(seed):
        classifier = Classifier(images.shape[1:], classes)
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(classifier.parameters(), lr=_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        for step in range(steps):
            rows = torch.randint(len(x), (_BATCH,))
            loss = F.cross_entropy(classifier(x[rows].float()), y[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress(step + 1, steps)
    return classifier.eval()


def accuracy(classifier: Describer, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Share of the images that the classifier labels as given."""
    return float((classifier.describe(images)[1].argmax(axis=1) == labels).mean())


def cached_classifier(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    cache: Path,
    report: Callable[[str], None] = lambda text: None,
    progress: ProgressCallback | None = None,
) -> tuple[Classifier, str]:
    """The classifier of these training images and its digest: one that comes with bgan, or the cache's.

    It is trained where there is none, or none that is whole; `progress` is called meanwhile, None being lines that
    `report` is called with.
    """
    classes = int(labels.max()) + 1
    name = f"classifier-{data_digest(images, labels)[:16]}-v{_VERSION}.safetensors"
    for path in (SHIPPED / name, cache / name):
        try:
            if path.exists():
                tensors, sidecar = load_tensors(path)
                classifier = Classifier(images.shape[1:], classes)
                classifier.load_state_dict(tensors)
                return classifier.eval(), sidecar["sha256"]
        except (CheckpointError, RuntimeError) as error:
            report(f"{error}; training it again")
    report(f"{TRAINING} that measures features, once for this data set")
    progress = progress or counted(report, TRAINING)
    classifier = train_classifier(images, labels, classes=classes, progress=progress)
    # As it is once it was loaded: the order of the weights in memory decides the last bits of its features.
    classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    sidecar = {"classes": classes, "images": len(images)}
    return classifier, save_tensors(cache / name, classifier.state_dict(), sidecar)


def data_digest(*arrays: NDArray[np.generic]) -> str:
    """SHA-256 of the arrays' shapes and contents, in hex."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
