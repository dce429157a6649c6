"""Weights & Biases: https://docs.wandb.ai. Its own variables say where to (WANDB_MODE=offline: a folder)."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..run import Run
from .tracker import PROJECT, Tracker, exit_status, histogram, package, settings_of


class WandB(Tracker):
    """Logs a run to the project of WANDB_PROJECT, or "bgan"; files of its own are in the run's folder.

    Raises UserError where the package `wandb` is not installed.
    """

    name = "wandb"

    def __init__(self) -> None:
        self._wandb = package("wandb", self.name)

    def open(self, run: Run, known_id: str | None) -> str:
        """Begin, or go on with the run of that id."""
        own_id = known_id or uuid.uuid4().hex[:8]
        self._logged = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=own_id,
            resume="allow",
            dir=str(run.folder),
            config=settings_of(run),
            settings=self._wandb.Settings(silent=True, console="off"),
        )
        self._logged.define_metric("*", step_metric="step")  # a step may come again after a resumption
        return own_id

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log figures."""
        self._logged.log({"step": step, **figures})

    def show(self, step: int, picture: Path) -> None:
        """Log an image."""
        self._logged.log({"step": step, "samples": self._wandb.Image(str(picture))})

    def on_preactivations(self, step: int, probabilities: NDArray[np.float32]) -> None:
        """Log their histogram."""
        counted = self._wandb.Histogram(np_histogram=histogram(probabilities))
        self._logged.log({"step": step, "preactivations": counted})

    def on_end(self, run: Run) -> None:
        """Send what is left."""
        if (logged := getattr(self, "_logged", None)) is not None:
            logged.finish(exit_code=int(exit_status() == "FAILED"))
