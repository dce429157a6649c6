"""A run: one folder that a stranger can audit, and that the same command resumes."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError, RunError
from ..common.files import write_atomically, write_json
from ..common.locks import file_lock
from ..config.setting import option
from ..config.training import TrainingConfig, differences
from .checkpoint import Checkpoint, checkpoint_files, load_newest_checkpoint
from .given import NOTHING_GIVEN, Given

CONFIG_FILE = "config.json"
_LOCK_FILE = ".lock"


class Run:
    """The paths of one run's folder, and what of it was given from Python."""

    def __init__(self, folder: Path | str, given: Given = NOTHING_GIVEN) -> None:
        self.folder = folder = Path(folder)
        self.given = given
        self.name = folder.resolve().name
        self.checkpoints = folder / "checkpoints"
        self.samples = folder / "samples"
        self.events = folder / "events"
        self.metrics_file = folder / "metrics.jsonl"
        self.report_file = folder / "report.json"
        self.clusters_file = folder / "clusters.npy"

    def config(self) -> TrainingConfig:
        """The settings that the folder was made with. Raises RunError where they cannot be read."""
        path = self.folder / CONFIG_FILE
        try:
            return TrainingConfig.from_dict(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, ConfigError) as error:
            raise RunError(f"{path} is not the config of a run ({error})") from error

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with self.metrics_file.open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")

    def is_evaluated(self, step: int) -> bool:
        """Whether metrics.jsonl has figures of an evaluation at this step."""
        lines = self.metrics_file.read_bytes().splitlines() if self.metrics_file.exists() else []
        return any(b'"evaluation"' in line and _step_of(line + b"\n") == step for line in lines)

    def forget_metrics_after(self, step: int) -> int:
        """Drop the lines of steps that are about to be done again, and damaged ones, whose number is returned."""
        if not self.metrics_file.exists():
            return 0
        content = self.metrics_file.read_bytes()
        lines = content.splitlines(keepends=True)
        steps = [_step_of(line) for line in lines]
        kept = b"".join(line for line, done in zip(lines, steps, strict=True) if done is not None and done <= step)
        if kept != content:
            write_atomically(self.metrics_file, kept)
        return steps.count(None)


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Hold the folder of a run, made if it is not there, against a second training.

    Raises RunError where another process trains it, also in another container or on another machine.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise RunError(f"{folder} is not the folder of a run, but a file; choose another --name") from error
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(folder / _LOCK_FILE))
        except BlockingIOError as error:
            raise RunError(f"another process trains {folder}; wait for it, or choose another --name") from error
        yield


def open_run(run: Run | Path, config: TrainingConfig) -> Run:
    """Make the folder of a run, or resume the one that is there.

    Raises RunError if it was written by other settings, or is some other folder.
    """
    run = run if isinstance(run, Run) else Run(run)
    folder = run.folder
    if (folder / CONFIG_FILE).exists():
        changed = differences(run.config(), config)
        if "data_digest" in changed:
            raise RunError(
                f"{folder} was trained on other images than {config.data.path or config.data.dataset} has now; "
                "choose another --name, or bring the old images back"
            )
        if changed:
            listed = ", ".join(f"{option(name)} {old} -> {new}" for name, (old, new) in changed.items())
            raise RunError(
                f"{folder} was written by other settings ({listed}); choose another --name, or the old settings"
            )
    elif folder.exists() and any(path.name != _LOCK_FILE for path in folder.iterdir()):
        raise RunError(f"{folder} is not the folder of a run, and not empty; choose another --name")
    for path in (run.checkpoints, run.samples, run.events):
        path.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG_FILE, config.to_dict())
    return run


def find_run(name: str | None, runs_dir: Path) -> Run:
    """The run of that name or path, or the one with the newest checkpoint. Raises RunError where there is none."""
    known = sorted(path.parent for path in runs_dir.glob(f"*/{CONFIG_FILE}"))
    if name is None:
        newest = max(known, key=_checkpoint_times, default=None)
        if newest is None or not _checkpoint_times(newest):
            raise RunError(f"there is no trained run in {runs_dir}; train one with `bgan train`")
        return Run(newest)
    for folder in (runs_dir / name, Path(name)):
        if (folder / CONFIG_FILE).exists():
            return Run(folder)
    names = ", ".join(folder.name for folder in known) or "none"
    raise RunError(f"there is no run {name!r} in {runs_dir}; the runs there: {names}")


def trained_checkpoint(run: Run, warn: Callable[[str], None]) -> Checkpoint:
    """The newest whole checkpoint of a run, as `load_newest_checkpoint`. Raises RunError where there is none."""
    checkpoint = load_newest_checkpoint(run.checkpoints, warn)
    if checkpoint is None:
        raise RunError(f"{run.folder} has no checkpoint yet; train it first with the command that made it")
    return checkpoint


def _step_of(line: bytes) -> int | None:
    """The step that a line of metrics is of; None for a damaged one, as a power cut or a full disk leaves it."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return None
    return step if isinstance(step, int) and line.endswith(b"\n") else None


def _checkpoint_times(folder: Path) -> list[float]:
    return sorted((path.stat().st_mtime for path in checkpoint_files(Run(folder).checkpoints)), reverse=True)
