"""Exporting and measuring from Python."""

import dataclasses
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..common.errors import SamplesError
from ..config.images import DatasetSpec
from ..data.dataset import BinaryDataset
from ..evaluation.evaluate import Evaluation, evaluate_samples
from ..evaluation.generator import TrainedGenerator, open_generator
from ..evaluation.reference import Reference, Report, load_reference, make_reference
from ..evaluation.samples import Samples, as_samples, load_samples
from ..exporting.exporter import ExportResult, export_run
from ..reports.diagnosis.diagnose import Diagnosis, DiagnosisOptions, diagnose
from ..training.run import Run
from ..training.trainer import resolve_device
from .checks import check_type, made
from .warning import Warn, warn_usually

ARRAYS = (".npy", ".npz")
"""Files of samples."""
_TEST_EVERY = 7  # of images that nobody has divided

RUN_WANTED = "a Run, as train() and Run.open() give"
DATASET_WANTED = "a BinaryDataset, as load_dataset() and BinaryDataset.from_arrays() give"
_EXPORT_OPTIONS = ("name", "binarization", "graph", "arithmetic", "overwrite", "warn")
Source = Run | Samples | TrainedGenerator | NDArray[Any] | str | os.PathLike[str]


def export(run: Run, path: str | os.PathLike[str] = "models", **options: Any) -> ExportResult:
    """Write the newest checkpoint of a run as one ONNX file: into a folder of models, or to a path.onnx.

    For the options, and what is raised, see `export_run`.
    """
    check_type("run", run, Run, RUN_WANTED)
    target = Path(path)
    if target.suffix == ".onnx":
        target, options = target.parent, {"name": target.stem, **options}
    options = {"warn": warn_usually, **options}
    return made(partial(export_run, run, target), _EXPORT_OPTIONS, options)


def evaluate(
    source: Source,
    dataset: BinaryDataset | DatasetSpec | Reference | str,
    *,
    training: BinaryDataset | None = None,
    count: int = 10_000,
    seed: int = 0,
    binarization: str | None = None,
    labelled: bool | None = None,
    metrics: Sequence[str] = (),
    device: str = "auto",
    report: Report = lambda text: None,
    warn: Warn = warn_usually,
) -> Evaluation:
    """Measure a run, a model file, samples or a file of them against real images; see docs/evaluation.md.

    A data set by name has test images. Of others `dataset` are the real images to compare with, and `training`
    those that were trained on; None: of `dataset` every seventh image is compared with, and the others are taken
    for those. `metrics`: keys of `METRICS` to measure; none: all. Raises UserError.
    """
    where = resolve_device(device)
    reference = dataset
    if not isinstance(reference, Reference):
        reference = reference_of(reference, training, labelled=labelled, device=where, report=report)
    metrics = (metrics,) if isinstance(metrics, str) else metrics
    samples = _samples(source, reference, count, seed, binarization, where, warn)
    return evaluate_samples(samples, reference, seed=seed, metrics=metrics, report=report)


def reference_of(
    dataset: BinaryDataset | DatasetSpec | str, training: BinaryDataset | None = None, **options: Any
) -> Reference:
    """The images to measure against, as `evaluate` has them."""
    if isinstance(dataset, str):
        dataset = DatasetSpec(dataset=dataset)
    check_type("dataset", dataset, (BinaryDataset, DatasetSpec), f"{DATASET_WANTED}, or a name")
    check_type("training", training, (BinaryDataset, type(None)), DATASET_WANTED)
    if isinstance(dataset, BinaryDataset) and dataset.spec is not None and training is None:
        dataset = dataset.spec
    if isinstance(dataset, DatasetSpec):
        return load_reference(dataset, **options)
    test = dataset
    if training is None:
        is_test = torch.arange(len(dataset)) % _TEST_EVERY == _TEST_EVERY - 1
        training, test = (dataset.part(rows.nonzero().squeeze(1)) for rows in (~is_test, is_test))
    return make_reference(training, test, **options)


def _samples(
    source: Source,
    reference: Reference,
    count: int,
    seed: int,
    binarization: str | None,
    device: torch.device,
    warn: Warn,
) -> Samples:
    if isinstance(source, Samples):
        return source.first(count)
    if isinstance(source, np.ndarray):
        return samples_of(source, reference.test.shape[1:]).first(count)
    if isinstance(source, Run):
        source = TrainedGenerator.from_run(source, warn, device)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix in ARRAYS:
            if not path.is_file():
                raise SamplesError(f"there is no file {path}")
            return load_samples(path, reference.test.shape[1:]).first(count)
        source = open_generator(str(path), path.parent, warn, device)
    check_type("source", source, TrainedGenerator, "a Run, a path, or an array of numpy")
    return source.sample(count, seed=seed, binarization=binarization)


def samples_of(images: NDArray[Any], image_shape: Sequence[int]) -> Samples:
    """Samples of an array of images [N, C, H, W] or [N, H, W] of 0 and 1. Raises SamplesError for another."""
    return as_samples({"images": images}, image_shape, "the array")


def diagnose_gradients(
    run: Run,
    *,
    of: str | None = None,
    estimators: Sequence[str] = (),
    neuron: str | None = None,
    dataset: BinaryDataset | None = None,
    data_dir: str | None = None,
    device: str = "auto",
    report: Report = lambda text: None,
    warn: Warn = warn_usually,
    **options: int,
) -> Diagnosis:
    """Measure gradient estimators on a trained run; the options are those of `DiagnosisOptions`.

    `of` are the neurons, "output", "gates" or "hidden"; None: gates or hidden ones, if the run has such. `dataset`
    are the images that it was trained on, where its settings do not name them. See docs/estimators.md.
    """
    check_type("run", run, Run, RUN_WANTED)
    check_type("dataset", dataset, (BinaryDataset, type(None)), DATASET_WANTED)
    known = tuple(field.name for field in dataclasses.fields(DiagnosisOptions))
    return diagnose(
        run,
        made(DiagnosisOptions, known, options),
        of=of,
        estimators=(estimators,) if isinstance(estimators, str) else estimators,
        neuron=neuron,
        dataset=dataset,
        data_dir=data_dir,
        device=resolve_device(device),
        report=report,
        warn=warn,
    )
