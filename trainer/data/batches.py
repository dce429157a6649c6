"""Batches of a data set, each a function of its index."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.errors import DataError
from ..common.rng import random_stream
from .packed import PackedImages


class BatchStream:
    """An endless stream of batches; every pass over the images has an order of its own.

    Batch `index` is a function of (images, batch_size, seed, index) alone, so a run can go on at any
    index. What does not fill a batch at the end of a pass is left out of that pass.
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
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.int64)

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in one pass over the images."""
        return len(self._images) // self._batch_size

    def batch(self, index: int) -> Tensor:
        """Batch `index` as float32 [B, C, H, W] of 0 and 1, on the device."""
        return self._images[self._rows(index)].to(self._device).float()

    def labels(self, index: int) -> Tensor | None:
        """The labels of batch `index`, int64 [B] on the device, where there are any."""
        return None if self._labels is None else self._labels[self._rows(index).to(self._device)]

    def _rows(self, index: int) -> Tensor:
        """Which images are in batch `index`."""
        current_pass, position = divmod(index, self.batches_per_epoch)
        if current_pass != self._pass:
            generator = random_stream(self._seed, "order", current_pass)
            order = torch.randperm(len(self._images), generator=generator)
            self._order = order.to(self._images.device) if isinstance(self._images, Tensor) else order
            self._pass = current_pass
        return self._order[position * self._batch_size : (position + 1) * self._batch_size]
