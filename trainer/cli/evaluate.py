"""`bgan evaluate`: the command and its tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..common.errors import ConfigError, SamplesError
from ..config.images import DATASETS, DatasetSpec, ImageOptions
from .options import (
    BinarizationName,
    DeviceName,
    RunsDir,
    given_settings,
    image_options,
    named_images,
    warn,
    with_settings,
    writable,
    wrote_json,
)

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from rich.table import Table

    from .. import Evaluation, Reference, TrainedGenerator

_ARRAYS = (".npy", ".npz")
_HISTOGRAM_SHOWN = range(1, 101)  # so many classes have their shares printed


@with_settings(
    {"Data": DatasetSpec, "How images are read": ImageOptions}, shown={"dataset": "the data set of the source"}
)
def evaluate(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs (names or folders), models (.onnx) or samples (.npy, .npz); several stand side by side.",
            show_default="the newest run",
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Samples to measure.", min=64, max=10**7)] = 10_000,
    seed: Annotated[int, typer.Option(help="Decides the samples and the random parts of metrics.", min=0)] = 0,
    binarization: BinarizationName = None,
    split: Annotated[
        Literal["test", "validation"],
        typer.Option(
            help="The real images to measure against: test, or validation, those that a run held out with "
            "--validation-images, to choose settings by."
        ),
    ] = "test",
    labels: Annotated[
        bool | None,
        typer.Option(
            "--labels/--no-labels",
            help="Measure with a classifier of the data set's labels; one for other data than mnist and digits "
            "is trained once and cached.",
            show_default="if it has labels",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure only these, by their keys in --json (repeatable), such as frechet_distance.",
            show_default="all",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw the samples of each class that a classifier is least sure of, and such real images, into "
            "this PNG file.",
            show_default=False,
            callback=writable,
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write everything measured as JSON to this file; - prints it.", callback=writable
        ),
    ] = None,
    device: DeviceName = "auto",
    runs_dir: RunsDir = Path("runs"),
    **_: Any,
) -> None:
    """Next to each figure stands its standard error, and the floor: the same metric of real images.

    Two-sample accuracy is how often fresh networks tell unseen samples from unseen real images: 0.5 if they are
    alike; at 0.55 one in ten is given away and guessing does for the rest. It grows with the number of images and
    with the networks, so compare it only at the same counts.

    Examples: bgan evaluate;  bgan evaluate samples.npz models/a.onnx --dataset mnist --json figures.json
    """
    from rich.console import Console

    from .. import draw_least_certain, load_samples, resolve_device, resolved_spec
    from .. import evaluate as measure
    from ..common.console import progress_line, say
    from ..common.files import write_atomically

    console, where = Console(stderr=True), resolve_device(device)
    given = given_settings(context)
    asked = named_images(given)
    if asked is None and image_options(given) != ImageOptions():
        raise ConfigError("options of reading images go with --data or --dataset; a run has its own")
    opened = [_opened(name, runs_dir, where) for name in sources or [""]]
    unnamed = DatasetSpec(dataset="auto")  # files of samples do not say
    own = [unnamed if isinstance(source, Path) else source.dataset_spec for source in opened]
    advice = f"choose one of {', '.join(DATASETS)}, or name images of your own with --data"
    resolve = partial(resolved_spec, data_dir=given.get("data_dir"), say=partial(say, console), advice=advice)
    specs = [resolve(each) for each in ([asked] if asked else own)]
    if asked is None and "validation_images" in given:
        specs = [dataclasses.replace(each, validation_images=given["validation_images"]) for each in specs]
    if split == "test":
        specs = [dataclasses.replace(each, validation_images=0) for each in specs]
    reference = read_reference(_common(specs), console, split=split, labelled=labels, device=where)
    if picture is not None and reference.classifier is None:
        raise ConfigError("--picture needs a classifier of labels; leave it out, or --no-labels")
    measured, evaluations = [], []
    with progress_line(console) as report:
        for source in opened:
            if isinstance(source, Path):
                samples = load_samples(source, reference.test.shape[1:]).first(count)
            else:
                report(f"{count} samples of {source.name}")
                samples = source.sample(count, seed=seed, binarization=binarization)
            measured.append(samples)
            evaluations.append(
                measure(
                    samples,
                    reference,
                    count=count,
                    seed=seed,
                    metrics=metric or (),
                    report=named(samples.source, report),
                )
            )
    if picture is not None:
        write_atomically(picture, draw_least_certain(measured, reference))
    if not wrote_json([evaluation.to_dict() for evaluation in evaluations], json_file):
        _print(evaluations, reference)


def read_reference(
    spec: DatasetSpec,
    console: Console,
    *,
    device: torch.device,
    split: str = "test",
    labelled: bool | None = None,
) -> Reference:
    """The images to measure against, while a bar shows how far the training of their classifier has come."""
    from .. import TRAINING, load_reference
    from ..common.console import counting_bar, say

    say(console, f"reading {spec.dataset}")
    with counting_bar(console, TRAINING) as progress:
        return load_reference(
            spec,
            split=split,
            labelled=labelled,
            device=device,
            report=partial(say, console),
            progress=progress,
        )


def named(name: str, report: Callable[[str], None]) -> Callable[[str], None]:
    """A report whose lines begin with a name."""
    return lambda text: report(f"{name}: {text}")


def _opened(name: str, runs_dir: Path, device: torch.device) -> TrainedGenerator | Path:
    """What is to be measured: a run, a model file, or the path of a file of samples."""
    from .. import open_generator

    path = Path(name)
    if path.suffix not in _ARRAYS:
        return open_generator(name or None, runs_dir, warn, device)
    if not path.is_file():
        raise SamplesError(f"there is no file {name}")
    return path


def _common(specs: Sequence[DatasetSpec]) -> DatasetSpec:
    """The images that all sources belong to. Raises ConfigError where they differ."""
    first, other = specs[0], next((spec for spec in specs if spec != specs[0]), None)
    if other is not None:
        names = f"{first.path or first.dataset} and {other.path or other.dataset}"
        how = ", read in different ways" if first.options != other.options else ""
        raise ConfigError(f"the sources belong to {names}{how}; name one with --dataset or --data")
    return first


def _print(evaluations: list[Evaluation], reference: Reference) -> None:
    from rich.console import Console

    from .. import no_difference
    from ..common.console import say, show_table

    console = Console()
    show_table(console, _table(evaluations, reference.split))
    lines = [
        f"classes of {each.source}, %: {each.class_percents()}"
        for each in evaluations
        if len(each.class_histogram or ()) in _HISTOGRAM_SHOWN
    ]
    lines += [
        f"floor: real {reference.split} images against real training images; to training images: other training "
        "images",
        "±: the standard error over draws of samples; differences of under two errors of theirs are none",
    ]
    sources = [(each.source, each.figures) for each in evaluations]
    lines += no_difference([*sources, ("the floor", evaluations[0].floor_figures)])
    lines += [
        f"left out: {line}" for line in dict.fromkeys(line for each in evaluations for line in each.left_out)
    ]
    if reference.classifier_accuracy is not None:
        share = f"{100 * reference.classifier_accuracy:.2f} %"
        lines += [f"the classifier is right on {share} of the {reference.split} images"]
    for line in lines:
        say(console, line)


def _table(evaluations: list[Evaluation], split: str) -> Table:
    """A row for each metric that any source has, a section for each group."""
    from rich.markup import escape
    from rich.table import Column, Table

    from .. import all_metrics

    first = evaluations[0]
    real = f"{first.compared} real {split} images of {first.dataset}"
    table = Table(
        "metric",
        *(Column(escape(evaluation.source), justify="right", overflow="fold") for evaluation in evaluations),
        Column("floor", justify="right"),
        "better",
        title=escape(f"{first.count} samples; pairs compare {first.compared} of them with {real}"),
    )
    group = None
    for key, metric in all_metrics().items():
        if not any(key in evaluation.metrics for evaluation in evaluations):
            continue
        if metric.group != group:
            table.add_section()
            group = metric.group
        values = [evaluation.figures.text(key) for evaluation in evaluations]
        table.add_row(metric.title, *values, first.floor_figures.text(key), metric.better)
    return table
