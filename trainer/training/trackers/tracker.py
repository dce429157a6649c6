"""What all trackers have in common: what they are given, and under which names."""

import importlib
import json
import sys
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...common.errors import Interrupted, UserError
from ...common.files import write_json
from ..callbacks import Callback
from ..run import Run
from ..trainer import Losses

PROJECT = "bgan"
BINS = np.linspace(0, 1, 51)
"""The limits of the histograms' bins."""
_IDS_FILE = "trackers.json"

Settings = dict[str, bool | int | float | str]


class Tracker(Callback):
    """Gives losses, pictures of samples, histograms of preactivations and evaluations to a tool of another."""

    name: ClassVar[str]
    """As on the command line."""

    @abstractmethod
    def open(self, run: Run, known_id: str | None) -> str | None:
        """Begin, or with the id of before go on; what identifies the run in the tool, if anything does."""

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep figures of a step."""

    @abstractmethod
    def show(self, step: int, picture: Path) -> None:
        """Keep the picture, a PNG, of the samples of a step."""

    def on_start(self, run: Run) -> None:
        """Begin, or go on with what a training of this run before began."""
        self._pictures, path = run.samples, run.folder / _IDS_FILE
        ids: dict[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
        found = self.open(run, ids.get(self.name))
        if found is not None and found != ids.get(self.name):
            write_json(path, {**ids, self.name: found})

    def on_step(self, step: int, losses: Losses) -> None:
        """Keep the losses, the slope, and the rates of gates."""
        self.log(step, losses.figures())

    def on_samples(self, step: int, images: NDArray[np.float32]) -> None:
        """Keep the grid of samples."""
        self.show(step, self._pictures / f"step_{step:08d}.png")

    def on_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep the figures as evaluation/NAME."""
        self.log(step, {f"evaluation/{name}": value for name, value in figures.items()})


def settings_of(run: Run) -> Settings:
    """The settings of a run by name, but for those that are not set."""
    config = run.config()
    settings = {"preset": config.preset, **config.settings(), **config.data.options.to_dict()}
    return {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}


def histogram(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How many lie in each of 50 bins, int64 [50], and the bins' limits, float64 [51]."""
    return np.histogram(probabilities, bins=BINS)


def package(name: str, extra: str) -> ModuleType:
    """The package of a tracker. Raises UserError, which names the extra of bgan, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the tracker {extra} needs the package {error.name!r}: pip install 'bgan[{extra}]'"
        ) from error


def exit_status() -> str:
    """How the training ended that `on_end` is called for: "FINISHED", "KILLED" by a signal, or "FAILED"."""
    error = sys.exception()
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
