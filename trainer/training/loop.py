"""The training loop, and what shows how it goes: it wires trainer, run folder, display and signals together."""

import os
import platform
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..common.console import PLAIN_INTERVAL_SECONDS, counting_bar, say
from ..common.errors import CallbackError, DivergenceError, Interrupted, NetworkError, PeerLostError, RunError
from ..common.files import write_json
from ..common.grids import GRID_COLUMNS, save_grid
from ..common.memory import peak_resident_mib
from ..common.signals import StopSignals
from ..config.training import TrainingConfig
from ..data.catalog import known_image_shape
from ..data.dataset import BinaryDataset
from ..networks.build import sizes_text
from ..networks.own import OwnGenerator
from ..networks.trial import export_problem
from .agreement import check_agreement, share_state
from .augmentation import build_augmentation
from .callbacks import Callback, Callbacks, StopTraining
from .checkpoint import CheckpointMeta, checkpoint_files, load_newest_checkpoint, save_checkpoint
from .distributed import ALONE, World
from .refining import load_base
from .run import Run, held_alone, open_run
from .trainer import READ_EVERY_STEPS, Losses, Trainer, resolve_device
from .training_set import keep_clusters, open_training_set

_OUTPUT_IS_GONE = (OSError, SystemExit)
"""What writing raises once a terminal was closed or a pipe is not read, at which rich would end the program."""
_COLUMNS_OF_CLASSES = range(4, 17)  # so many classes have a column each in the grids of samples
_LEAST_IMAGES = 2  # of a class: of one there is nothing to learn but itself
_RATE_WINDOW = 100  # steps that the speed is taken over
Evaluate = Callable[[Run], Mapping[str, float]]
"""Measures the newest checkpoint of a run: its figures by name."""
_Reason = signal.Signals | StopTraining | CallbackError
"""What ends a training before its last step."""


def train(
    config: TrainingConfig,
    run: Run | Path,
    console: Console,
    warn: Callable[[str], None],
    world: World = ALONE,
    *,
    dataset: BinaryDataset | None = None,
    callbacks: Sequence[Callback] = (),
    evaluate: Evaluate | None = None,
) -> None:
    """Train a run, or one in that folder, to its last epoch, from its newest checkpoint where it has one.

    Its networks and objective are those that the run was given, or else those that the settings name; so is the
    data set.

    `warn` is called with a line for all that is odd about how the data were read, for each damaged checkpoint that
    was passed over, and for damaged metrics. Raises Interrupted after a signal, DivergenceError on a loss that is
    not finite, CallbackError after a callback raised, and RunError where the folder cannot be written, belongs to
    other settings or is trained by another process; each leaves the newest checkpoint whole. Invalid settings and
    data are found before there is a folder.

    `evaluate` is called every `evaluate_every` epochs, after a checkpoint; what it raises ends the training.

    With others in the `world`, all call this; the first alone opens the folder, calls the `callbacks` and
    evaluates, and the others get its state.
    Raises in all what one of them raises before the first step, and PeerLostError where one has ended.
    """
    if config.optimization.shards > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # it decides bits; torchrun's default for several processes
    run = run if isinstance(run, Run) else Run(run)
    given = dataset
    dataset = world.in_turn(lambda: _read(config, console, run, warn, given))
    has_clusters = config.networks.clusters is not None
    clusters = world.from_first(dataset.labels if has_clusters else None)  # asked by all, whatever their settings
    if has_clusters and clusters is not None:
        dataset = replace(dataset, labels=clusters)
    for note in dataset.notes:
        warn(note)
    if given is None:  # else the settings have it
        config = config.replace(data_digest=dataset.digest)
    check_agreement(world, config, dataset)
    trainer = world.together(
        lambda: Trainer(config, dataset, resolve_device(config.run.device, world), world, run.given)
    )
    _warn_of_lone_images(trainer, warn)
    with ExitStack() as held:

        def opened() -> _Loop | None:
            if not world.is_first:
                return None
            load_base(trainer, run, warn)
            held.enter_context(_opened(run, config, dataset))
            loop = _Loop(trainer, run, Callbacks(callbacks), evaluate)
            say(console, sizes_text(config, trainer.image_shape, len(trainer.classes), trainer.network_sizes))
            loop.resume(console, warn)
            _warn_of_no_export(trainer, warn)
            return loop

        loop = world.together(opened)
        share_state(world, trainer)
        with StopSignals() as signals:
            if loop is None:
                _follow(trainer, signals)
                return
            with _Display(trainer, console) as display:
                loop.run_to_end(signals, display)
            _warn_of_gates(trainer, warn)


@contextmanager
def _opened(run: Run, config: TrainingConfig, dataset: BinaryDataset) -> Iterator[None]:
    """The run, its folder held alone. What ends the training says which checkpoint there is."""
    with held_alone(run.folder):
        open_run(run, config)
        if config.networks.clusters is not None:
            keep_clusters(run, dataset)
        try:
            yield
        except (DivergenceError, NetworkError, PeerLostError) as error:
            raise type(error)(f"{error}; {_kept(run)}") from error
        except OSError as error:
            raise RunError(
                f"cannot write to {error.filename or run.folder}: {error.strerror or error}; {_kept(run)}. "
                "Make room and run the same command again"
            ) from error


def _follow(trainer: Trainer, signals: StopSignals) -> None:
    """Train along with the first process, which alone writes."""
    if _is_done(trainer):
        return
    first_step = trainer.step
    while (reason := _reason_to_stop(trainer.world, signals.received)) is None and not _is_done(trainer):
        _advance(trainer)
    if reason is not None:
        if trainer.step > first_step:
            trainer.read_losses()
        _raise_for(reason, trainer)


def _advance(trainer: Trainer) -> Losses:
    """One iteration, and the last losses that were read: in the same iterations by all processes.

    They are read before anything is written, and else as rarely as may be: a GPU is waited for.
    """
    trainer.advance()
    is_due = _ends_an_epoch(trainer) or trainer.step % READ_EVERY_STEPS == 0
    return trainer.read_losses() if is_due or trainer.losses is None else trainer.losses


def _ends_an_epoch(trainer: Trainer) -> bool:
    return trainer.step % trainer.steps_per_epoch == 0


def _is_done(trainer: Trainer) -> bool:
    return trainer.step >= trainer.total_steps


def _reason_to_stop(world: World, own: _Reason | None) -> _Reason | None:
    """What asks for a stop in this process, or in another."""
    if not world.any(own is not None):
        return None
    reasons = world.gather(own)
    return own or next(reason for reason in reasons if reason is not None)


def _raise_for(reason: _Reason, trainer: Trainer) -> None:
    """Raise what the user is told of a training that was stopped and saved; nothing after StopTraining."""
    saved = f"stopped and saved at step {trainer.step}" if trainer.step else "nothing is trained yet"
    saved += "; the same command resumes it"
    if isinstance(reason, signal.Signals):
        raise Interrupted(f"{reason.name}: {saved}", exit_code=128 + reason)
    if isinstance(reason, CallbackError):
        raise CallbackError(f"{reason}; {saved}") from (reason.__cause__ or reason)


def _warn_of_lone_images(trainer: Trainer, warn: Callable[[str], None]) -> None:
    counts = zip(trainer.classes, trainer.class_counts, strict=True)
    lone = [name for name, count in counts if count < _LEAST_IMAGES]
    if lone:
        named = ", ".join(lone[:5]) + (", ..." if len(lone) > 5 else "")
        warn(
            f"{len(lone)} of {len(trainer.classes)} classes have fewer than {_LEAST_IMAGES} training images each "
            f"({named}); their images can only be repeated: join them with others, or leave them out"
        )


def _warn_of_no_export(trainer: Trainer, warn: Callable[[str], None]) -> None:
    """Say before hours of training that the generator, one of one's own, cannot be exported."""
    own = trainer.generator
    if trainer.step == 0 and isinstance(own, OwnGenerator) and (reason := export_problem(own)) is not None:
        warn(f"the generator {own.name} trains, but cannot be exported ({reason})")


def _warn_of_gates(trainer: Trainer, warn: Callable[[str], None]) -> None:
    """Name the gates that a training left dead: what they guard was not trained."""
    shares = trainer.gate_shares(averaged=False)
    dead = [] if shares is None else shares.dead()
    if dead:
        own, parts = trainer.config.inner, ", ".join(map(str, dead))
        raised = "--gate-rate" if own.gate_by == "random" else "--gate-penalty or --gate-rate"
        warn(
            f"dead gates: {len(dead)} of {own.gates}, those of the parts {parts} (from 0), which run for fewer "
            f"than 1 image in 1,000; raise {raised}, or take fewer --gates"
        )


def planned_sizes(config: TrainingConfig, console: Console) -> str:
    """How large the networks of a training would be, in one line.

    Images are read, a file or folder converted, only where their shape or classes cannot be known without. Raises
    ConfigError and DataError where they cannot be trained on so.
    """
    shape, class_count = known_image_shape(config.data), 0
    if shape is None or config.networks.conditional:
        dataset = _read(config, console)
        shape, class_count = dataset.image_shape, len(dataset.class_names) if config.networks.conditional else 0
    build_augmentation(config.objective.augment, shape)
    return sizes_text(config, shape, class_count)


def _read(
    config: TrainingConfig,
    console: Console,
    run: Run | None = None,
    warn: Callable[[str], None] = lambda text: None,
    given: BinaryDataset | None = None,
) -> BinaryDataset:
    """What is trained on; a file or folder is converted where it was not before, with a bar."""
    with counting_bar(console, f"converting {config.data.path}") as progress:
        return open_training_set(config, run, dataset=given, progress=progress, warn=warn)


def _kept(run: Run) -> str:
    newest = next(iter(checkpoint_files(run.checkpoints)), None)
    return f"the newest checkpoint is {newest.name}" if newest else "there is no checkpoint yet"


class _Display:
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
        with suppress(*_OUTPUT_IS_GONE):
            self._bar.stop()

    def message(self, text: str) -> None:
        with suppress(*_OUTPUT_IS_GONE):
            say(self._console, text)

    def update(self, losses: Losses) -> None:
        now = time.monotonic()
        self._times.append(now)
        trainer = self._trainer
        last = trainer.step == trainer.total_steps
        if self._console.is_terminal:
            epoch = min(trainer.epoch + 1, self._epochs)
            with suppress(*_OUTPUT_IS_GONE):
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
            f"slope {self._trainer.current_slope:.3g}{_gates_text(losses)}  left {left}"
        )


def _gates_text(losses: Losses) -> str:
    """The mean share of the gates that are on, and how far they differ."""
    if not losses.gates:
        return ""
    mean = sum(losses.gates) / len(losses.gates)
    return f"  gates {mean:.2f} ({min(losses.gates):.2f} to {max(losses.gates):.2f})"


class _Loop:
    def __init__(self, trainer: Trainer, run: Run, callbacks: Callbacks, evaluate: Evaluate | None) -> None:
        self._trainer, self._run, self._callbacks, self._evaluate = trainer, run, callbacks, evaluate
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self._first_step = self._saved_step = 0

    def resume(self, console: Console, warn: Callable[[str], None]) -> None:
        checkpoint = load_newest_checkpoint(self._run.checkpoints, warn)
        if checkpoint is not None:
            self._check_classes(checkpoint.meta.class_counts)
            self._trainer.load_state_dict(checkpoint.tensors, checkpoint.meta.step)
            self._seconds_before = checkpoint.meta.seconds
            say(console, f"resuming at step {self._trainer.step} of {self._run.folder}")
        self._first_step = self._saved_step = self._trainer.step
        if damaged := self._run.forget_metrics_after(self._first_step):
            lines = f"{damaged} damaged line{'s' if damaged > 1 else ''}"
            warn(f"{self._run.metrics_file} had {lines}, left out now; the run resumes from its checkpoint")

    def _check_classes(self, counts: tuple[int, ...]) -> None:
        """Raise RunError where the classes are not those, by their numbers of images, that a checkpoint had."""
        if counts not in {(), self._trainer.class_counts}:  # none in those of older versions
            raise RunError(
                f"the classes of {self._run.folder} have other numbers of images than they were trained with; "
                f"bring back its images or {self._run.clusters_file.name}, or choose another --name"
            )

    def run_to_end(self, signals: StopSignals, display: _Display) -> None:
        trainer = self._trainer
        if _is_done(trainer) and not self._is_evaluation_due():
            may_go_on = trainer.config.optimization.learning_rate_decay == "none"
            more = "; resume it with more --epochs" if may_go_on else ", its last"
            display.message(f"{self._run.folder} is trained to epoch {trainer.epoch}{more}")
            return
        try:
            self._callbacks.start(self._run)
            self._train(signals, display)
            self._write_report()
        except BaseException:
            if (failed := self._callbacks.end(self._run)) is not None:
                display.message(f"warning: {failed}")
            raise
        if (failed := self._callbacks.end(self._run)) is not None:
            raise CallbackError(f"{failed}; the run is saved at step {trainer.step}") from failed.__cause__

    def _train(self, signals: StopSignals, display: _Display) -> None:
        """Train to the last step, or until something asks for a stop. Raises as `_raise_for`."""
        trainer = self._trainer
        if trainer.step == 0:
            self._save_samples()
        self._evaluate_if_due()  # where the training before was ended before it was measured
        while (reason := self._reason_to_stop(signals)) is None and not _is_done(trainer):
            losses = _advance(trainer)
            epoch_ends = _ends_an_epoch(trainer)
            if epoch_ends or trainer.step % READ_EVERY_STEPS == 0:
                self._log(losses)
            if epoch_ends:
                self._save_samples()
                self._save_checkpoint()
                self._evaluate_if_due()
            display.update(losses)
        if reason is not None:
            if trainer.step > self._saved_step:
                trainer.read_losses()
                self._save_checkpoint()
            _raise_for(self._callbacks.raised or reason, trainer)

    def _reason_to_stop(self, signals: StopSignals) -> _Reason | None:
        return _reason_to_stop(self._trainer.world, self._callbacks.raised or signals.received)

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _log(self, losses: Losses) -> None:
        step = self._trainer.step
        epoch = (step - 1) // self._trainer.steps_per_epoch + 1
        seconds = round(self._seconds(), 3)
        gates = {"gates": [round(share, 4) for share in losses.gates]} if losses.gates else {}
        row = {"step": step, "epoch": epoch, **losses.figures(), **gates, "seconds": seconds}
        self._run.append_metrics(row)
        self._callbacks.call("on_step", step, losses)

    def _is_evaluation_due(self) -> bool:
        """Whether this step, of which there is a checkpoint, is to be measured and is not yet."""
        trainer, every = self._trainer, self._trainer.config.run.evaluate_every
        return (
            self._evaluate is not None
            and every is not None
            and trainer.step == self._saved_step > 0
            and _ends_an_epoch(trainer)
            and trainer.epoch % every == 0
            and not self._run.is_evaluated(trainer.step)
        )

    def _evaluate_if_due(self) -> None:
        if self._evaluate is None or self._callbacks.raised is not None or not self._is_evaluation_due():
            return
        trainer, figures = self._trainer, self._evaluate(self._run)
        self._run.append_metrics({"step": trainer.step, "epoch": trainer.epoch, "evaluation": dict(figures)})
        self._callbacks.call("on_evaluation", trainer.step, figures)

    def _save_samples(self) -> None:
        trainer = self._trainer
        columns = len(trainer.classes) if len(trainer.classes) in _COLUMNS_OF_CLASSES else GRID_COLUMNS
        path = self._run.samples / f"step_{trainer.step:08d}.png"
        logits = trainer.grid_logits()
        images = trainer.sample_grid(logits).cpu().numpy()
        save_grid(images, path, columns=columns)
        if self._callbacks:
            probabilities = torch.sigmoid(trainer.current_slope * logits).cpu().numpy()
            self._callbacks.call("on_samples", trainer.step, images)
            self._callbacks.call("on_preactivations", trainer.step, probabilities)

    def _save_checkpoint(self) -> None:
        trainer = self._trainer
        meta = CheckpointMeta(
            step=trainer.step,
            epoch=trainer.epoch,
            slope=trainer.current_slope,
            image_shape=trainer.image_shape,
            seconds=self._seconds(),
            classes=trainer.classes,
            class_counts=trainer.class_counts,
        )
        path = save_checkpoint(self._run.checkpoints, trainer.state_dict(), meta)
        self._saved_step = trainer.step
        self._callbacks.call("on_checkpoint", trainer.step, path)

    def _write_report(self) -> None:
        elapsed = time.monotonic() - self._started
        trainer = self._trainer
        shares = trainer.gate_shares()
        report: dict[str, Any] = {
            "steps": trainer.step,
            "epochs": trainer.epoch,
            "seconds": round(self._seconds(), 1),
            "steps_per_second": round((trainer.step - self._first_step) / elapsed, 2),
            "peak_resident_mib": peak_resident_mib(),
            "device": str(trainer.device),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "system": platform.system(),
            "versions": {name: version(name) for name in ("bgan", "torch", "torchvision", "numpy")},
            "python": platform.python_version(),
        }
        if shares is not None:
            report["gate_shares"] = [round(share, 4) for share in shares.overall(trainer.class_counts).tolist()]
        write_json(self._run.report_file, report)
