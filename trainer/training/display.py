"""Shows how a training goes: a live display on a terminal, plain lines elsewhere."""

import time
from collections import deque
from datetime import timedelta
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..common.console import PLAIN_INTERVAL_SECONDS, say
from .trainer import Losses, Trainer

_RATE_WINDOW = 100


class ProgressDisplay:
    """Epoch, step, steps/s, losses, slope and time left of one training, as a context manager."""

    def __init__(self, trainer: Trainer, console: Console) -> None:
        self._trainer = trainer
        self._console = console
        self._times: deque[float] = deque(maxlen=_RATE_WINDOW)
        self._last_line = time.monotonic()
        epoch, status = TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"), "{task.fields[status]}"
        columns = (epoch, BarColumn(), MofNCompleteColumn(), TextColumn(status))
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._epochs = trainer.config.optimization.epochs
        fields: dict[str, Any] = {"epoch": trainer.epoch + 1, "epochs": self._epochs, "status": ""}
        self._task = self._bar.add_task("", total=trainer.total_steps, completed=trainer.step, **fields)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def message(self, text: str) -> None:
        """Print a line above the display."""
        say(self._console, text)

    def update(self, losses: Losses) -> None:
        """Show one more iteration done."""
        now = time.monotonic()
        self._times.append(now)
        trainer = self._trainer
        last = trainer.step == trainer.total_steps
        if self._console.is_terminal:
            epoch = min(trainer.epoch + 1, self._epochs)
            self._bar.update(self._task, completed=trainer.step, epoch=epoch, status=self._status(losses))
        elif last or now - self._last_line >= PLAIN_INTERVAL_SECONDS:
            self._last_line = now
            epoch = (trainer.step - 1) // trainer.steps_per_epoch + 1
            done = f"epoch {epoch}/{self._epochs} step {trainer.step}/{trainer.total_steps}"
            self.message(f"{done} {self._status(losses)}")

    def _status(self, losses: Losses) -> str:
        elapsed = self._times[-1] - self._times[0]
        rate = (len(self._times) - 1) / elapsed if elapsed > 0 else 0.0
        left = timedelta(seconds=round((self._trainer.total_steps - self._trainer.step) / rate)) if rate else "?"
        return (
            f"{rate:.1f} steps/s  D {losses.discriminator:+.3f}  G {losses.generator:+.3f}  "
            f"slope {self._trainer.current_slope:.3g}  left {left}"
        )
