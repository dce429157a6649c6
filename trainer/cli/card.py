"""`bgan card`: the command."""

from __future__ import annotations

import dataclasses
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from ..common.errors import ConfigError, SamplesError
from ..common.stores import Store, is_url
from .evaluate import named, read_reference
from .options import DataDir, DeviceName, RunsDir, writable

if TYPE_CHECKING:
    from .. import Evaluation, Samples, TrainedModel
    from ..config.images import DatasetSpec

_PICTURE_COUNT = 64
_PICTURE_SEED = 1


def card(
    models: Annotated[
        list[str], typer.Argument(help="Files that `bgan export` wrote, their URLs, or names of models.")
    ],
    folder: Annotated[
        str | None,
        typer.Option(
            "--models",
            metavar="PATH|URL",
            help="The folder, or URL (s3://), of models in which to look names up.",
            show_default="no names",
        ),
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="The license of the weights.", show_default="none is stated")
    ] = None,
    licence: Annotated[str | None, typer.Option(hidden=True)] = None,
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
    repository: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write model, card and picture into this folder, as a repository of the Hugging Face Hub.",
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Samples to measure.", min=64, max=10**7)] = 10_000,
    data_dir: DataDir = None,
    device: DeviceName = "auto",
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """The run that a model was exported from has to be there.

    A card says what the file is, which command trained it on what data in what time, what `bgan evaluate` measures
    of it, beside real images, and its licence.

    Examples: bgan card models/digits.onnx --license MIT --picture digits.png;
    bgan card digits --models s3://bucket/models;
    bgan card models/digits.onnx --license MIT --repository digits
    """
    from rich.console import Console

    from .. import HubRepository, card_text, evaluate, load_samples, open_trained_model, resolve_device
    from ..common.console import progress_line
    from ..common.files import write_atomically

    stated = license_ if licence is None else licence
    if repository is not None:
        picture = _prepared(repository, models, picture) / HubRepository.picture
    with ExitStack() as stack:
        places = [_locate(model, folder, stack) for model in models]
        for path in (*(place.path for place in places), *([published_samples] if published_samples else [])):
            if not path.is_file():
                raise SamplesError(f"there is no file {path}")
        where = resolve_device(device)
        trained = [open_trained_model(place.path, runs_dir) for place in places]
        console = Console(stderr=True)
        reference = read_reference(_common_spec(trained, data_dir), console, device=where)
        if picture is not None:
            from .. import grid_figure

            panels = [model.generator.sample(_PICTURE_COUNT, seed=_PICTURE_SEED).images for model in trained]
            grid_figure(picture, [(model.generator.name, False) for model in trained], {"": panels})
        with progress_line(console) as report:

            def measured(samples: Samples) -> Evaluation:
                return evaluate(samples, reference, count=count, report=named(samples.source, report))

            published = None
            if published_samples is not None:
                images = load_samples(published_samples, reference.test.shape[1:]).first(count)
                published = measured(images).figures
            for model, place in zip(trained, places, strict=True):
                evaluation = measured(model.generator.sample(count))
                text = card_text(
                    model,
                    evaluation,
                    reference,
                    published=published,
                    licence=stated,
                    picture=HubRepository.picture if repository else place.link(picture),
                )
                if repository is None:
                    write_atomically(model.card, text.encode())
                    continue
                written = HubRepository(
                    model=model.path,
                    manifest=model.manifest,
                    text=text,
                    evaluation=evaluation,
                    dataset=reference.dataset,
                    licence=stated,
                ).write(repository)
                typer.echo(written.parent)
                return
        for model, place in zip(trained, places, strict=True):
            typer.echo(place.publish(model.card, picture))


def _prepared(repository: Path, models: list[str], picture: Path | None) -> Path:
    """The folder of a repository, made. Raises ConfigError, and SamplesError where it cannot be made."""
    import huggingface_hub  # noqa: F401 - it takes a while to measure what could not be written

    if len(models) > 1:
        raise ConfigError("a repository has one model; name one, or leave out --repository")
    if picture is not None:
        raise ConfigError("--repository draws its own picture; leave out --picture")
    try:
        repository.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SamplesError(f"{repository} cannot be made ({error.strerror}); name another folder") from error
    return repository


@dataclass(frozen=True, slots=True)
class _Place:
    """A model file: a path, and where it is of a store, a copy of it."""

    path: Path
    store: Store | None = None
    name: str = ""
    """Its path in the store."""

    def link(self, picture: Path | None) -> str | None:
        """What its card calls a picture, which a store gets beside it."""
        if picture is None:
            return None
        return picture.name if self.store else os.path.relpath(picture, self.path.parent)

    def publish(self, card: Path, picture: Path | None) -> str:
        """Bring a card, and its picture, to where the model is; returns where that is."""
        if self.store is None:
            return str(card)
        folder = self.name.rpartition("/")[0]
        for path in (picture, card) if picture else (card,):
            place = self.store.send(path, f"{folder}/{path.name}".lstrip("/"))
        return place


def _locate(model: str, folder: str | None, stack: ExitStack) -> _Place:
    """Find a model by its path, its URL, or its name in a folder; `stack` has the copy of one of a store.

    Raises SamplesError.
    """
    if folder is None and is_url(model):
        folder, _, model = model.rpartition("/")
    elif folder is None or Path(model).is_file():
        return _Place(Path(model))
    name = model if model.endswith(".onnx") else f"{model}.onnx"
    if not is_url(folder):
        return _Place(Path(folder) / name)
    store = Store(folder)
    copies = Path(stack.enter_context(TemporaryDirectory(prefix="bgan-card-")))
    path = store.fetch(name, copies)
    if path is None:
        raise SamplesError(f"there is no file {store.shown}/{name}")
    stack.enter_context(store.naming(copies))
    return _Place(path, store, name)


def _common_spec(trained: list[TrainedModel], data_dir: Path | None) -> DatasetSpec:
    """The images that all models were trained on. Raises ConfigError where they differ."""
    folder = str(data_dir) if data_dir else None
    first, *others = [dataclasses.replace(model.config.data, data_dir=folder) for model in trained]
    if any(other != first for other in others):
        names = sorted({spec.dataset for spec in (first, *others)})
        differ = " and ".join(names) if len(names) > 1 else f"{names[0]}, read in different ways"
        raise ConfigError(f"the models belong to {differ}; write the cards of one data set at a time")
    return first
