"""`bgan card`: the command."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..common.signals import held_back
from .options import DataDir, RunsDir

if TYPE_CHECKING:
    from ..evaluation.reference import Reference
    from ..reports.card import TrainedModel

_PICTURE_COUNT = 64
_PICTURE_SEED = 1


def card(
    models: Annotated[list[Path], typer.Argument(help="Files that `bgan export` wrote.")],
    licence: Annotated[
        str | None, typer.Option(help="The licence of the weights.", show_default="none is stated")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw samples of all these models, side by side, into this PNG.")
    ] = None,
    published_samples: Annotated[
        Path | None, typer.Option(help="Samples of the published code (.npz), for a column of the figures.")
    ] = None,
    count: Annotated[int, typer.Option(help="Samples to measure.", min=64)] = 10_000,
    data_dir: DataDir = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure exported models and write a card beside each: MODEL.md.

    A card says what the file is, which command trained it on what data in what time, what `bgan evaluate`
    measures of it, beside real images, and its licence. The run that it was exported from has to be there.

    Example: bgan card models/digits.onnx --licence MIT --picture digits.png
    """
    from rich.console import Console

    with held_back():
        from ..common.console import progress_line
        from ..common.errors import SamplesError
        from ..common.files import write_atomically
        from ..evaluation.evaluate import evaluate_samples
        from ..evaluation.generator import TrainedGenerator
        from ..reports.card import card_text, open_trained_model

    missing = [
        path for path in [*models, *([published_samples] if published_samples else [])] if not path.is_file()
    ]
    if missing:
        raise SamplesError(f"there is no file {missing[0]}")
    trained = [open_trained_model(path, runs_dir) for path in models]
    with progress_line(Console(stderr=True)) as say:
        reference = _reference(trained, data_dir, say)
        published = _published(published_samples, count, reference, say) if published_samples else None
        if picture is not None:
            _draw(trained, picture)
        for model in trained:
            evaluation = evaluate_samples(
                TrainedGenerator.from_model(model.path).sample(count), reference, report=_named(model.name, say)
            )
            text = card_text(
                model,
                evaluation,
                reference,
                published=published,
                licence=licence,
                picture=None if picture is None else os.path.relpath(picture, model.path.parent),
            )
            write_atomically(_card_path(model), text.encode())
    for model in trained:
        typer.echo(_card_path(model))


def _card_path(model: TrainedModel) -> Path:
    return model.path.with_suffix(".md")


def _reference(trained: list[TrainedModel], data_dir: Path | None, say: Callable[[str], None]) -> Reference:
    from ..common.errors import ConfigError
    from ..evaluation.reference import load_reference

    folder = str(data_dir) if data_dir else None
    choices = [dataclasses.replace(model.config.dataset_spec, data_dir=folder) for model in trained]
    if any(choice != choices[0] for choice in choices):
        names = sorted({choice.dataset for choice in choices})
        differ = " and ".join(names) if len(names) > 1 else f"{names[0]}, read in different ways"
        raise ConfigError(f"the models belong to {differ}; write the cards of one data set at a time")
    say(f"reading {choices[0].dataset}")
    return load_reference(choices[0], report=say)


def _published(path: Path, count: int, reference: Reference, say: Callable[[str], None]) -> dict[str, float]:
    from ..evaluation.evaluate import evaluate_samples
    from ..evaluation.samples import load_samples

    samples = load_samples(path, reference.test.shape[1:]).first(count)
    return evaluate_samples(samples, reference, report=_named(path.name, say)).metrics


def _draw(trained: list[TrainedModel], path: Path) -> None:
    from ..evaluation.generator import TrainedGenerator
    from ..reports.figures import grid_figure

    generators = [TrainedGenerator.from_model(model.path) for model in trained]
    panels = [generator.sample(_PICTURE_COUNT, seed=_PICTURE_SEED).images for generator in generators]
    names = [model.name for model in trained]
    grid_figure(path, [panels], row_titles=[""], column_titles=names, preactivated=[False] * len(names))


def _named(name: str, say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: say(f"{name}: {text}")
