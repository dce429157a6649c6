"""Exploring a generator from Python."""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

from ..common.errors import UserError
from ..common.files import write_atomically
from ..data.dataset import BinaryDataset
from ..evaluation.generator import TrainedGenerator, open_generator
from ..evaluation.reference import Report
from ..reports.exploration.explore import ExplorationOptions, load_real_images
from ..reports.exploration.explore import explore as compute
from ..reports.exploration.page import build_page
from ..reports.exploration.pictures import draw_pictures
from ..training.run import Run
from ..training.trainer import resolve_device
from .checks import check_type, made
from .measuring import DATASET_WANTED
from .warning import Warn, warn_usually

PAGE = "exploration.html"


class ExploredPage(NamedTuple):
    """What `explore` wrote."""

    page: Path
    pictures: list[Path]


def explore(
    source: Run | TrainedGenerator | str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    nearest: bool = True,
    dataset: BinaryDataset | str | None = None,
    data_dir: str | None = None,
    device: str = "auto",
    report: Report = lambda text: None,
    warn: Warn = warn_usually,
    **options: int,
) -> ExploredPage:
    """Draw what a run or a model file has learned: a page, and its pictures, into the folder `output`.

    None is a folder in the run's, or exploration/MODEL. `nearest` searches a data set, its own or `dataset`, by
    name or as it was trained on, for the nearest training images. The options are those of
    `ExplorationOptions`. Raises UserError.
    """
    plan = made(ExplorationOptions, tuple(field.name for field in dataclasses.fields(ExplorationOptions)), options)
    check_type("dataset", dataset, (BinaryDataset, str, type(None)), f"{DATASET_WANTED}, or a name")
    generator = _opened(source, device, warn)
    folder = Path(output) if output is not None else generator.output
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():  # known before anything is computed
        raise UserError(f"output is {folder}, but {existing} is a file; name a folder")
    real = load_real_images(generator, dataset, data_dir, report) if nearest else None
    exploration = compute(generator, plan, real, report)
    report("drawing the pictures")
    pictures = draw_pictures(exploration)
    paths = [folder / f"{picture.name}.png" for picture in pictures]
    for path, picture in zip(paths, pictures, strict=True):
        write_atomically(path, picture.png)
    write_atomically(folder / PAGE, build_page(exploration, pictures).encode())
    return ExploredPage(folder / PAGE, paths)


def _opened(source: Any, device: str, warn: Warn) -> TrainedGenerator:
    if isinstance(source, TrainedGenerator):
        return source
    check_type("source", source, (Run, str, os.PathLike), "a Run, or the path of a run or a model file")
    where = resolve_device(device)
    if isinstance(source, Run):
        return TrainedGenerator.from_run(source, warn, where)
    return open_generator(str(source), Path(source).parent, warn, where)
