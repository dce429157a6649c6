"""Callbacks: what a training tells while it runs, to trackers and to whoever else asks.

They see and decide nothing of the weights: every random number of a training follows from its seed and step.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import CallbackError
from .run import Run
from .trainer import Losses

_REASON_AT_MOST = 300  # characters


class StopTraining(Exception):  # noqa: N818 - it is no error
    """Raised by a callback: the training ends after this step, saved, as if it had been its last.

    The run can be resumed.
    """


class Callback:
    """Told of one training, in the process that writes its run; each method does nothing here.

    Methods are called between two steps, in the order of the callbacks, and training waits for them. What one
    raises ends the training, after a checkpoint: `StopTraining` as if it were done, anything else as a
    CallbackError that names the callback and its method. Then `on_end` alone is called.
    """

    def on_start(self, run: Run) -> None:
        """Before the first step of a training, or of one that is resumed."""

    def on_step(self, step: int, losses: Losses) -> None:
        """After every 50th step and after the last of each epoch, where losses are read from the device."""

    def on_samples(self, step: int, images: NDArray[np.float32]) -> None:
        """At step 0 and after each epoch: images [64, C, H, W] in [0, 1] of the run's fixed latents.

        Their picture is `run.samples / f"step_{step:08d}.png"`.
        """

    def on_preactivations(self, step: int, probabilities: NDArray[np.float32]) -> None:
        """With `on_samples`: the probabilities [64, C, H, W] that neurons made those images of."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """After a checkpoint was written."""

    def on_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """After an evaluation: its metrics, by the keys of `bgan evaluate --json`."""

    def on_end(self, run: Run) -> None:
        """Once, whatever ended the training that `on_start` was called for."""


class Callbacks:
    """Several callbacks as one, which keeps what they raise for the loop to act on between two steps."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)
        self._started: list[Callback] = []
        self.raised: StopTraining | CallbackError | None = None
        """What asks for the end of the training; no other method than `end` is called from then on."""

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def start(self, run: Run) -> None:
        """Call `on_start` of each."""
        for callback in self._callbacks:
            if self.raised is None:
                self._started.append(callback)  # also of what it raises in: it may have opened something
                self._call_one(callback, "on_start", run)

    def call(self, method: str, *arguments: Any) -> None:
        """Call the method of each, until one raises."""
        for callback in self._callbacks:
            if self.raised is None:
                self._call_one(callback, method, *arguments)

    def end(self, run: Run) -> CallbackError | None:
        """Call `on_end` of each that was started; the first error of any."""
        first = None
        while self._started:
            self.raised = None
            self._call_one(self._started.pop(0), "on_end", run)
            if first is None and isinstance(self.raised, CallbackError):
                first = self.raised
        return first

    def _call_one(self, callback: Callback, method: str, *arguments: Any) -> None:
        try:
            getattr(callback, method)(*arguments)
        except StopTraining:
            self.raised = StopTraining()  # one of a class of its own might not be told to other processes
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # the run is saved whatever it is
            reason = next(iter(str(error).strip().splitlines()), "")[:_REASON_AT_MOST]
            named = f"the callback {type(callback).__qualname__}.{method} raised {type(error).__name__}"
            self.raised = CallbackError(f"{named}: {reason}" if reason else named)
            self.raised.__cause__ = error
