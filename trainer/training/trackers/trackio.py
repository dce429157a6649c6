"""trackio: https://huggingface.co/docs/trackio. A database in TRACKIO_DIR, or a Space (TRACKIO_SPACE_ID)."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..run import Run
from .tracker import PROJECT, Tracker, histogram, package, settings_of


class Trackio(Tracker):
    """Logs a run to the project of TRACKIO_PROJECT, or "bgan". `trackio show` shows it.

    Raises UserError where the package `trackio` is not installed.
    """

    name = "trackio"

    def __init__(self) -> None:
        self._trackio = package("trackio", self.name)

    def open(self, run: Run, known_id: str | None) -> str:
        """Begin, or go on with the run of that name."""
        self._logged = self._trackio.init(
            os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=known_id or run.name,
            config=settings_of(run),
            resume="never" if known_id is None else "must",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return str(self._logged.name)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures."""
        self._logged.log(dict(figures), step=step)

    def show(self, step: int, picture: Path) -> None:
        """Log an image."""
        self._logged.log({"samples": self._trackio.Image(str(picture))}, step=step)

    def on_preactivations(self, step: int, probabilities: NDArray[np.float32]) -> None:
        """Log their histogram."""
        counted = self._trackio.Histogram(np_histogram=histogram(probabilities))
        self._logged.log({"preactivations": counted}, step=step)

    def on_end(self, run: Run) -> None:
        """Write what is left."""
        if (logged := getattr(self, "_logged", None)) is not None:
            logged.finish()
