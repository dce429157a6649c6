"""TensorBoard: event files in the run's own folder."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from ..callbacks import Callback
from ..run import Run
from ..trainer import Losses
from .figures import evaluation_figures, samples_picture, settings_of

_BINS = np.linspace(0, 1, 51)


class TensorBoard(Callback):
    """Writes losses, grids of samples, histograms of preactivations, evaluations and the settings of a run.

    What a training that was broken off wrote after its newest checkpoint is dropped when the run is resumed.
    """

    def on_start(self, run: Run) -> None:
        """Take the run; the writer is opened at the first step, of which older events are dropped."""
        self._run = run
        self._open: SummaryWriter | None = None

    def on_step(self, step: int, losses: Losses) -> None:
        """Write the losses and the slope."""
        writer = self._writer(step)
        for name, value in asdict(losses).items():
            writer.add_scalar(name, value, step)

    def on_samples(self, step: int, images: NDArray[np.float32]) -> None:
        """Write the grid of samples."""
        with Image.open(samples_picture(self._run, step)) as picture:
            self._writer(step).add_image("samples", np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def on_preactivations(self, step: int, probabilities: NDArray[np.float32]) -> None:
        """Write their histogram."""
        self._writer(step).add_histogram("preactivations", probabilities.ravel(), step, bins=_BINS)

    def on_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the figures."""
        for name, value in evaluation_figures(figures).items():
            self._writer(step).add_scalar(name, value, step)

    def on_end(self, run: Run) -> None:
        """Close the file."""
        if self._open is not None:
            self._open.close()

    def _writer(self, step: int) -> SummaryWriter:
        """That of the run's events; where it is opened it writes the settings."""
        if self._open is None:
            self._open = SummaryWriter(str(self._run.events), purge_step=step)
            _, settings, _ = hparams(settings_of(self._run), {})  # type: ignore[no-untyped-call]
            files = self._open._get_file_writer()  # type: ignore[no-untyped-call]
            files.add_summary(settings)  # add_hparams would open a run of its own
        return self._open
