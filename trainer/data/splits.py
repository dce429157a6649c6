"""Which images of a set are held out."""

import hashlib

import numpy as np
import torch
from torch import Tensor

from ..common.errors import DataError
from .dataset import BinaryDataset
from .groups import in_whole_groups


def split_off(dataset: BinaryDataset, count: int) -> tuple[BinaryDataset, BinaryDataset]:
    """The set without `count` images, and these: those whose SHA-256 is least, in the order of the set.

    So neither the order of the set nor a seed decides which, and copies of an image lie on one side, but for those
    of the last. Of a set in groups whole groups are taken. Raises DataError where nothing is left to train on.
    """
    if count >= len(dataset):
        raise DataError(
            f"validation-images is {count}, but {dataset.name} has only {len(dataset)} images to train on"
        )
    if dataset.groups is None:
        is_held_out = torch.zeros(len(dataset), dtype=torch.bool)
        is_held_out[torch.from_numpy(np.argsort(_digests(dataset), kind="stable")[:count])] = True
    else:
        is_held_out = torch.from_numpy(in_whole_groups(dataset.groups.numpy(), count, dataset.name))
    return dataset.part(_rows(~is_held_out)), dataset.part(_rows(is_held_out))


def _rows(mask: Tensor) -> Tensor:
    return mask.nonzero()[:, 0]


def _digests(dataset: BinaryDataset) -> np.ndarray[tuple[int], np.dtype[np.bytes_]]:
    """The SHA-256 of each image, of its bits as numpy's packbits packs them."""
    packed = (np.packbits(images.reshape(len(images), -1), axis=1) for images in dataset.chunks())
    return np.array([hashlib.sha256(row.tobytes()).digest() for rows in packed for row in rows], "V32").view("S32")
