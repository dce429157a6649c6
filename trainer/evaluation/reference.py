"""What samples are measured against: a data set with its classifier."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.console import counted
from ..common.errors import DataError
from ..common.files import cache_folder
from ..common.rng import CPU
from ..config.images import DatasetSpec
from ..data.catalog import open_dataset
from ..data.dataset import BinaryDataset
from ..data.packed import ProgressCallback
from .classifier import Classifier, accuracy, cached_classifier, data_digest
from .stacked import StackedClassifier, stacked_classifier

_TRAINING_AT_MOST, _TEST_AT_MOST = 60_000, 10_000  # of a file or folder; a published set is taken as a whole

Images = NDArray[np.uint8]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A data set to measure against."""

    dataset: str
    training: Images
    test: Images
    """The real images that samples are measured against."""
    split: str
    """What these are: "test" or "validation"."""
    digest: str
    """Of the images and of what measures them."""
    device: torch.device
    """Where networks measure."""
    classifier: Classifier | StackedClassifier | None
    """None: only what needs no labels is measured."""
    classifier_accuracy: float | None
    """On the test images."""
    class_shares: NDArray[np.float64] | None
    """Of the training images, by label; None without a classifier."""
    cache: Path
    classes: tuple[str, ...] = ()
    """The names of the classes, by label, or their numbers; none without a classifier."""


def load_reference(
    choice: DatasetSpec,
    *,
    split: str = "test",
    labelled: bool | None = None,
    device: torch.device = CPU,
    report: Report = lambda text: None,
    progress: ProgressCallback | None = None,
) -> Reference:
    """The images that were chosen with their classifier; for the rest see `make_reference`.

    With the split "test" no training image is held out for validation. At most 60,000 training and 10,000 test
    images of a file or folder are taken, evenly spaced.
    """
    converting = counted(report, f"converting {choice.path}")
    if split == "test":
        choice = dataclasses.replace(choice, validation_images=0)
    training, test = (open_dataset(choice, split=part, progress=converting) for part in ("train", split))
    training, test = training.in_memory(_TRAINING_AT_MOST), test.in_memory(_TEST_AT_MOST)
    return make_reference(
        training, test, split=split, labelled=labelled, device=device, report=report, progress=progress
    )


def make_reference(
    training: BinaryDataset,
    test: BinaryDataset,
    *,
    split: str = "test",
    labelled: bool | None = None,
    device: torch.device = CPU,
    cache: Path | None = None,
    report: Report = lambda text: None,
    progress: ProgressCallback | None = None,
) -> Reference:
    """A reference of two splits; its classifier is trained on first use, see `cached_classifier`.

    `labelled` False leaves out what needs a classifier, None does so where there are no labels, and True
    raises DataError there. Networks measure on the device; the classifier is trained on the CPU.
    """
    cache = cache or cache_folder()
    images, test_images = training.numpy(), test.numpy()
    classifier: Classifier | StackedClassifier | None = None
    digest, correct, shares = "unlabelled", None, None
    classes: tuple[str, ...] = ()
    if training.labels is None or test.labels is None:
        if labelled:
            raise DataError(f"the data set {training.name} has no labels; measure without them: --no-labels")
    elif labelled is not False:
        is_stacked = training.digest is None and training.name == "stacked-mnist"
        make = stacked_classifier if is_stacked else cached_classifier
        classifier, digest = make(images, training.labels.numpy(), cache=cache, report=report, progress=progress)
        classifier.to(device)
        correct = accuracy(classifier, test_images, test.labels.numpy())
        shares = np.bincount(training.labels.numpy()) / len(images)
        classes = training.classes or tuple(map(str, range(len(shares))))
    return Reference(
        dataset=training.name,
        training=images,
        test=test_images,
        split=split,
        digest=data_digest(images, test_images, np.frombuffer(digest.encode(), np.uint8)),
        classifier=classifier,
        device=device,
        classifier_accuracy=correct,
        class_shares=shares,
        classes=classes,
        cache=cache,
    )
