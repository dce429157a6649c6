"""The real images that explored ones are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...common.errors import ConfigError, DataError, UserError
from ...config.dataset import DATASETS, DatasetSpec
from ...config.images import ImageOptions
from ...data.catalog import choose_dataset, open_dataset
from ...evaluation.generator import TrainedGenerator

TEST_IMAGES = 500
TRAINING_IMAGES = 60_000  # of a file or folder


@dataclass(frozen=True, kw_only=True, slots=True)
class RealImages:
    """The images of a data set, uint8 [N, C, H, W] of 0 and 1."""

    name: str
    training: NDArray[np.uint8]
    """The images trained on."""
    test: NDArray[np.uint8]
    """At most TEST_IMAGES that were not trained on; none where all were."""


def load_real_images(
    generator: TrainedGenerator, dataset: str | None, data_dir: str | None, report: Callable[[str], None]
) -> RealImages:
    """The images of the data set that is named, or of the generator's own.

    Raises DataError where they cannot be had or have another shape than the generator's.
    """
    try:
        spec = _dataset_spec(generator, dataset, data_dir, report)
        report(f"reading {spec.dataset}")
        training = open_dataset(spec, split=generator.training_split).in_memory(TRAINING_IMAGES)
        if training.image_shape != generator.image_shape:
            own, other = ("x".join(map(str, shape)) for shape in (generator.image_shape, training.image_shape))
            raise DataError(
                f"{generator.name} makes images of {own}, but those of {spec.dataset} are {other}; "
                "name its own data set with --dataset"
            )
        test = training.numpy()[:0]
        if generator.training_split == "train":
            test = open_dataset(spec, split="test").first(TEST_IMAGES).numpy()
    except UserError as error:
        raise DataError(f"{error}, or leave the nearest training images out with --no-nearest") from error
    return RealImages(name=spec.dataset, training=training.numpy(), test=test)


def _dataset_spec(
    generator: TrainedGenerator, dataset: str | None, data_dir: str | None, report: Callable[[str], None]
) -> DatasetSpec:
    """The images that are asked for, or the generator's own. Raises ConfigError where there are none."""
    own = generator.dataset_spec
    if own.data is not None and dataset is None:
        return own
    name, folder = dataset or own.dataset, data_dir or own.data_dir
    if name not in DATASETS:
        raise ConfigError(f"dataset is {name!r}; name one of {', '.join(DATASETS)} with --dataset")
    name = choose_dataset(name, data_dir=folder, say=report)
    return DatasetSpec(dataset=name, data_dir=folder, options=own.options if dataset is None else ImageOptions())
