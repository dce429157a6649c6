"""`bgan card`: the command."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..common.errors import ConfigError, SamplesError
from .evaluate import named, read_reference
from .options import DataDir, DeviceName, RunsDir, writable

if TYPE_CHECKING:
    from ..config.images import DatasetSpec
    from ..evaluation.evaluate import Evaluation
    from ..evaluation.samples import Samples
    from ..reports.card import TrainedModel

_PICTURE_COUNT = 64
_PICTURE_SEED = 1


def card(
    models: Annotated[list[Path], typer.Argument(help="Files that `bgan export` wrote.")],
    licence: Annotated[
        str | None, typer.Option(help="The licence of the weights.", show_default="none is stated")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw samples of all these models, side by side, into this PNG.",
            callback=writable,
        ),
    ] = None,
    published_samples: Annotated[
        Path | None, typer.Option(help="Samples of the published code (.npz), for a column of the figures.")
    ] = None,
    count: Annotated[int, typer.Option(help="Samples to measure.", min=64, max=10**7)] = 10_000,
    data_dir: DataDir = None,
    device: DeviceName = "auto",
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure exported models and write a card beside each: MODEL.md.

    A card says what the file is, which command trained it on what data in what time, what `bgan evaluate`
    measures of it, beside real images, and its licence. The run that it was exported from has to be there.

    Example: bgan card models/digits.onnx --licence MIT --picture digits.png
    """
    from rich.console import Console

    from ..common.console import progress_line
    from ..common.files import write_atomically
    from ..evaluation.evaluate import evaluate_samples
    from ..evaluation.samples import load_samples
    from ..reports.card import card_text, open_trained_model
    from ..training.trainer import resolve_device

    for path in (*models, published_samples or models[0]):
        if not path.is_file():
            raise SamplesError(f"there is no file {path}")
    where = resolve_device(device)
    trained = [open_trained_model(path, runs_dir) for path in models]
    console = Console(stderr=True)
    reference = read_reference(_common_spec(trained, data_dir), console, device=where)
    if picture is not None:
        from ..reports.figures import grid_figure

        panels = [model.generator.sample(_PICTURE_COUNT, seed=_PICTURE_SEED).images for model in trained]
        grid_figure(picture, [(model.generator.name, False) for model in trained], {"": panels})
    with progress_line(console) as report:

        def measured(samples: Samples) -> Evaluation:
            return evaluate_samples(samples, reference, report=named(samples.source, report))

        published = None
        if published_samples is not None:
            published = measured(load_samples(published_samples, reference.test.shape[1:]).first(count)).figures
        for model in trained:
            text = card_text(
                model,
                measured(model.generator.sample(count)),
                reference,
                published=published,
                licence=licence,
                picture=None if picture is None else os.path.relpath(picture, model.path.parent),
            )
            write_atomically(model.card, text.encode())
    for model in trained:
        typer.echo(model.card)


def _common_spec(trained: list[TrainedModel], data_dir: Path | None) -> DatasetSpec:
    """The images that all models were trained on. Raises ConfigError where they differ."""
    folder = str(data_dir) if data_dir else None
    first, *others = [dataclasses.replace(model.config.data, data_dir=folder) for model in trained]
    if any(other != first for other in others):
        names = sorted({spec.dataset for spec in (first, *others)})
        differ = " and ".join(names) if len(names) > 1 else f"{names[0]}, read in different ways"
        raise ConfigError(f"the models belong to {differ}; write the cards of one data set at a time")
    return first
