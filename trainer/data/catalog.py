"""Every data set that can be trained on: one by name, or a file or folder.

"digits" is scikit-learn's bundled handwriting (1,797 images of 8x8, Alpaydin and Kaynak 1998), upscaled to
28x28, which needs no download; the other names are those of torchvision_datasets.py.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ..common.errors import ConfigError, DataError
from ..common.files import data_root
from ..common.image_shape import ImageShape
from ..config.images import DATASETS, Binarization, DatasetSpec, ImageOptions
from ..config.setting import check_choice
from .binarize import AnyBits
from .binary_images import BinaryImages
from .dataset import BinaryDataset, images_of
from .groups import note_on_neighbours
from .packed import ProgressCallback, packed_dataset
from .readers.arrays import ArraySource, sliced_array
from .readers.source import printable
from .splits import split_off
from .torchvision_datasets import STACKED_CHANNELS, TORCHVISION_DATASETS

_DIGITS_TRAINING_COUNT = 1540  # six sevenths, as of MNIST; the set is ordered by writer
_DIGITS_LEVELS = 16
_LEAST_IMAGES_A_CLASS = 100  # to condition on it without being told; digits have 154
_FEW_OF_A_CLASS = {"omniglot", "stacked-mnist"}  # which have 15 and 60; those of the other names have enough
_USUAL_SIZE = (28, 28)


def open_dataset(
    spec: DatasetSpec, *, split: str = "train", progress: ProgressCallback = lambda done, total: None
) -> BinaryDataset:
    """The split "train", "validation", "test" or "all" of a data set.

    Those for validation are in a file of their own, or what `split_off` takes from the train split. A file or
    folder is converted on first use; `progress` is called with (done, of how many). Raises DataError if it is not
    available or has no image in that split, and ConfigError if an option does not fit it.
    """
    return dataclasses.replace(_opened(spec, split, progress), spec=spec, split=split)


def _opened(spec: DatasetSpec, split: str, progress: ProgressCallback) -> BinaryDataset:
    other = {"validation": spec.validation_data, "test": spec.test_data}.get(split)
    if other is not None:
        return _beside(spec, other, progress)
    if split == "validation" and not spec.validation_images:
        raise ConfigError(
            f"no images of {spec.path or spec.dataset} are held out; see --validation-images and --validation-data"
        )
    if spec.validation_images and split in {"train", "validation"}:
        rest, held_out = split_off(_open_split(spec, "train", progress), spec.validation_images)
        return rest if split == "train" else held_out
    return _open_split(spec, split, progress)


def _open_split(spec: DatasetSpec, split: str, progress: ProgressCallback) -> BinaryDataset:
    if spec.path is None and spec.digest is not None and split != "test":
        raise DataError(f"the images of {spec.dataset} were given from Python; give them again, as to train()")
    if spec.path is None:
        return _named(spec.dataset, data_dir=spec.data_dir, split=split, options=spec.options)
    if spec.test_data and split == "train":
        split = "all"
    packed = packed_dataset(Path(spec.path), spec.options, progress=progress)
    if spec.digest not in {None, packed.digest}:
        raise DataError(
            f"the images of {spec.path} are not those that were trained on: their digest is "
            f"{packed.digest[:12]}, it was {spec.digest[:12]}; bring those back, or name others with --data"
        )
    images, labels, groups = packed.images(split), None, None
    if not len(images):
        raise DataError(f"{spec.path} has {len(packed.rows)} images, of which none is held out for tests")
    if packed.labels is not None:
        labels = torch.from_numpy(packed.labels[images.positions])
    if packed.groups is not None:
        groups = torch.from_numpy(packed.groups[images.positions])
    notes = packed.notes
    is_split_by_place = groups is None and not spec.test_data
    if is_split_by_place and packed.dynamic_seed is None:  # levels are not compared by their bits
        note = note_on_neighbours(packed.rows, packed.labels)
        notes = notes if note is None else (*notes, note)
    return BinaryDataset(spec.dataset, images, labels, packed.classes, packed.digest, notes, groups)


def _beside(spec: DatasetSpec, path: str, progress: ProgressCallback) -> BinaryDataset:
    """All images of another file or folder, with the labels that their classes have in that of the spec."""
    own, other = (_open_split(each, "all", progress) for each in (spec, spec.part_at(path)))
    if own.image_shape != other.image_shape:
        shapes = ["x".join(map(str, each.image_shape)) for each in (other, own)]
        raise DataError(f"{path} has images of {shapes[0]}, {spec.path} of {shapes[1]}; see --size")
    labels = None
    if own.classes is not None and other.classes is not None and other.labels is not None:
        numbers = {name: number for number, name in enumerate(own.classes)}
        if unknown := [name for name in other.classes if name not in numbers]:
            raise DataError(f"{path} has the class {printable(unknown[0])}, which {spec.path} has not")
        labels = torch.tensor([numbers[name] for name in other.classes])[other.labels]
    return dataclasses.replace(other, name=spec.dataset, labels=labels, classes=own.classes, digest=own.digest)


def known_image_shape(spec: DatasetSpec) -> ImageShape | None:
    """The shape of the images of a data set by name, known without reading it; None for other images."""
    if spec.path is not None:
        return None
    channels = STACKED_CHANNELS if spec.dataset == "stacked-mnist" else 1
    return ImageShape(channels, *(spec.options.height_and_width or _USUAL_SIZE))


def load_dataset(
    name: str, *, data_dir: str | None = None, split: str = "train", options: ImageOptions | None = None
) -> BinaryDataset:
    """The split "train", "test" or "all" of a data set by name.

    Raises DataError if it is not available, or cannot be trained on as the options make it, and ConfigError if
    an option does not fit it.
    """
    check_choice("split", split, ("train", "test", "all"), None)
    spec = DatasetSpec(dataset=name, data_dir=data_dir, options=options or ImageOptions())
    return open_dataset(spec, split=split)


def _named(
    name: str, *, data_dir: str | None = None, split: str = "train", options: ImageOptions | None = None
) -> BinaryDataset:
    """The split "train", "test" or "all" of a data set by name.

    Raises DataError if it is not available, or cannot be trained on as the options make it, and ConfigError if
    an option does not fit it.
    """
    options = options or ImageOptions()
    options.check_for_pixels(name)
    splits = ("train", "test") if split == "all" else (split,)
    parts = [_converted(name, data_dir, part, options) for part in splits]
    bits, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    images = images_of(bits, options.bernoulli_seed)
    classes = TORCHVISION_DATASETS[name].classes if name in TORCHVISION_DATASETS else None
    return BinaryDataset(name, images, torch.from_numpy(labels), classes)


def _converted(
    name: str, data_dir: str | None, split: str, options: ImageOptions
) -> tuple[AnyBits, NDArray[np.int64]]:
    """Bits, or levels by dynamic binarization, and labels of the split "train" or "test"."""
    full_size = options.size is not None
    pixels, targets, usual = _pixels_of(name, data_dir, split, full_size=full_size)
    if options.binarize is None:
        options = dataclasses.replace(options, binarize=usual[0], threshold=usual[1])
    source = ArraySource(sliced_array(pixels), ImageOptions(), name)
    return np.concatenate([bits for bits, _ in BinaryImages(source, options, name).chunks()]), targets


def has_classes(spec: DatasetSpec, *, progress: ProgressCallback = lambda done, total: None) -> bool:
    """Whether there are classes to condition on, of 100 training images each in the mean.

    A data set by name is not read. A file or folder is converted on first use, as by `open_dataset`, which says
    what it raises.
    """
    if spec.path is None:
        return spec.dataset not in _FEW_OF_A_CLASS
    dataset = _open_split(spec, "train", progress)  # which images are held out of it need not be known
    try:
        return len(dataset) - spec.validation_images >= _LEAST_IMAGES_A_CLASS * len(dataset.class_names)
    except DataError:
        return False


def choose_dataset(name: str, *, data_dir: str | None, say: Callable[[str], None]) -> str:
    """The name of a data set; "auto" is "mnist" if it can be downloaded, else "digits", and `say` is told why."""
    if name != "auto":
        return name
    try:
        TORCHVISION_DATASETS["mnist"].download(data_root(data_dir))
    except DataError as error:
        say(f"using the bundled digits: {error}")
        return "digits"
    return "mnist"


def resolved_spec(
    spec: DatasetSpec, *, data_dir: str | None, say: Callable[[str], None], advice: str
) -> DatasetSpec:
    """The same images with what "auto" stands for; `data_dir` overrides their own.

    Raises ConfigError, which ends with the `advice`, where there is no data set of that name.
    """
    if spec.path is not None:
        return spec
    if spec.dataset not in DATASETS:
        raise ConfigError(f"dataset is {spec.dataset!r}; {advice}")
    folder = data_dir or spec.data_dir
    name = choose_dataset(spec.dataset, data_dir=folder, say=say)
    return dataclasses.replace(spec, dataset=name, data_dir=folder)


def _pixels_of(
    name: str, data_dir: str | None, split: str, *, full_size: bool
) -> tuple[NDArray[Any], NDArray[np.int64], tuple[Binarization, float | None]]:
    """Pixels [N, 1, H, W] and labels [N] of one split, and the usual binarization with its threshold."""
    if name == "digits":
        return *_load_digits(split), ("threshold", 0.5)
    if name not in TORCHVISION_DATASETS:
        raise DataError(f"there is no data set {name!r}; there are digits, {', '.join(TORCHVISION_DATASETS)}")
    source = TORCHVISION_DATASETS[name]
    return *source.read(data_root(data_dir), split, full_size=full_size), (source.binarize, source.threshold)


def _load_digits(split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    part = slice(None, _DIGITS_TRAINING_COUNT) if split == "train" else slice(_DIGITS_TRAINING_COUNT, None)
    levels = torch.from_numpy(bunch.images[part]).float().unsqueeze(1)  # [N, 1, 8, 8] of 0 .. 16
    pixels = F.interpolate(levels / _DIGITS_LEVELS, size=(28, 28), mode="bilinear")
    return pixels.numpy(), bunch.target[part]
