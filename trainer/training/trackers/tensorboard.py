"""TensorBoard: event files in the run's own folder."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ..run import Run
from .tracker import BINS, Tracker, settings_of


class TensorBoard(Tracker):
    """Writes losses, grids of samples, histograms of preactivations, evaluations and the settings of a run.

    What a training that was broken off wrote after its newest checkpoint is dropped when the run is resumed.
    """

    name = "tensorboard"

    def open(self, run: Run, known_id: str | None) -> None:
        """Take the run; the writer is opened at the first step, from which on older events are dropped."""
        self._run = run
        self._opened: SummaryWriter | None = None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Write scalars."""
        for name, value in figures.items():
            self._writer(step).add_scalar(name, value, step)

    def show(self, step: int, picture: Path) -> None:
        """Write an image."""
        with Image.open(picture) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        self._writer(step).add_image("samples", pixels, step, dataformats="HWC")

    def on_preactivations(self, step: int, probabilities: NDArray[np.float32]) -> None:
        """Write their histogram."""
        self._writer(step).add_histogram("preactivations", probabilities.ravel(), step, bins=BINS)

    def on_end(self, run: Run) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()

    def _writer(self, step: int) -> SummaryWriter:
        """That of the run's events; where it is opened it writes the settings."""
        if self._opened is None:
            self._opened = SummaryWriter(str(self._run.events), purge_step=step)
            _, settings, _ = hparams(settings_of(self._run), {})  # type: ignore[no-untyped-call]
            files = self._opened._get_file_writer()  # type: ignore[no-untyped-call]
            files.add_summary(settings)  # add_hparams would open a run of its own
        return self._opened
