"""TensorBoard: event files in the run's own folder."""

from dataclasses import asdict
from functools import cached_property

from torch.utils.tensorboard import SummaryWriter

from ..callbacks import Callback
from ..run import Run
from ..trainer import Losses


class TensorBoard(Callback):
    """Writes the events of a run; what a broken training wrote after its newest checkpoint is dropped."""

    def on_start(self, run: Run) -> None:
        """Choose the folder; the writer waits for the first step, after which older events are dropped."""
        self._folder = run.events
        self._purge_step = 0

    def on_step(self, step: int, losses: Losses) -> None:
        """Write the losses and the slope."""
        self._purge_step = self._purge_step or step
        for name, value in asdict(losses).items():
            self._writer.add_scalar(name, value, step)

    def on_end(self, run: Run) -> None:
        """Close the file."""
        if "_writer" in vars(self):
            self._writer.close()

    @cached_property
    def _writer(self) -> SummaryWriter:
        return SummaryWriter(str(self._folder), purge_step=self._purge_step)
