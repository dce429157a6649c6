"""The real images that explored ones are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .config import DATASETS
from .data import choose_dataset, load_dataset
from .errors import ConfigError, DataError, UserError
from .exploration_source import ExploredGenerator

TEST_IMAGES = 500
_WITHOUT = "or leave the nearest training images out with --no-nearest"


@dataclass(frozen=True, kw_only=True, slots=True)
class RealImages:
    """The images of a data set, uint8 [N, C, H, W] of 0 and 1."""

    name: str
    training: NDArray[np.uint8]
    """The images trained on."""
    test: NDArray[np.uint8]
    """At most TEST_IMAGES that were not trained on; none where all were."""


def load_real_images(
    generator: ExploredGenerator, dataset: str | None, data_dir: str | None, report: Callable[[str], None]
) -> RealImages:
    """The images of the data set that is named, or of the generator's own.

    Raises DataError where they cannot be had or have another shape than the generator's.
    """
    try:
        return _load(generator, dataset or generator.dataset, data_dir or generator.data_dir, report)
    except UserError as error:
        raise DataError(f"{error}, {_WITHOUT}") from error


def _load(
    generator: ExploredGenerator, name: str, data_dir: str | None, report: Callable[[str], None]
) -> RealImages:
    if name not in DATASETS:
        raise ConfigError(f"dataset is {name!r}; name one of {', '.join(DATASETS)} with --dataset")
    name = choose_dataset(name, data_dir=data_dir, say=report)
    report(f"reading {name}")
    training = load_dataset(name, data_dir=data_dir, split=generator.training_split)
    if training.image_shape != generator.image_shape:
        own, other = ("x".join(map(str, shape)) for shape in (generator.image_shape, training.image_shape))
        raise DataError(
            f"{generator.name} makes images of {own}, but those of {name} are {other}; "
            "name its own data set with --dataset"
        )
    test = training.images[:0]
    if generator.training_split == "train":
        test = load_dataset(name, data_dir=data_dir, split="test").images[:TEST_IMAGES]
    return RealImages(name=name, training=training.images.numpy(), test=test.numpy())
