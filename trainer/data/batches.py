"""Batches of a data set, each a function of its index."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.errors import DataError
from ..common.rng import random_stream
from .packed import PackedImages


class BatchStream:
    """An endless stream of batches; every epoch has an order of its own.

    Batch `index` is a function of (images, batch_size, seed, index) alone, so a run can resume at any index.
    Each epoch drops its last incomplete batch. Raises DataError if the images do not fill one batch.
    """

    def __init__(
        self,
        images: Tensor | PackedImages,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        labels: Tensor | None = None,
    ) -> None:
        if batch_size > len(images):
            raise DataError(f"batch-size is {batch_size}, but there are only {len(images)} images to train on")
        self._images = images.to(device) if isinstance(images, Tensor) else images
        self._labels = None if labels is None else labels.to(device)
        self._batch_size = batch_size
        self._seed = seed
        self._device = device
        self.batches_per_epoch = len(images) // batch_size
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def batch(self, index: int) -> Tensor:
        """Batch `index` as float32 [B, C, H, W] of 0 and 1, on the device."""
        return self._images[self._rows(index)].to(self._device).float()

    def labels(self, index: int) -> Tensor | None:
        """The labels of batch `index`, int64 [B] on the device; None without labels."""
        return None if self._labels is None else self._labels[self._rows(index).to(self._device)]

    def _rows(self, index: int) -> Tensor:
        """Which images are in batch `index`."""
        epoch, position = divmod(index, self.batches_per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(len(self._images), generator=random_stream(self._seed, "order", epoch))
            self._order = order.to(self._images.device) if isinstance(self._images, Tensor) else order
            self._epoch = epoch
        return self._order[position * self._batch_size : (position + 1) * self._batch_size]
