"""A run: one folder that a stranger can audit, and that the same command resumes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..common.errors import ConfigError, RunError
from ..common.files import write_json
from ..config.setting import option
from ..config.training import TrainingConfig, differences
from .checkpoint import Checkpoint, checkpoint_files, load_newest_checkpoint

CONFIG_FILE = "config.json"


class Run:
    """The paths of one run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.resolve().name
        self.checkpoints = folder / "checkpoints"
        self.samples = folder / "samples"
        self.events = folder / "events"
        self.metrics_file = folder / "metrics.jsonl"
        self.report_file = folder / "report.json"

    def config(self) -> TrainingConfig:
        """The settings that the folder was made with. Raises RunError where they cannot be read."""
        path = self.folder / CONFIG_FILE
        try:
            return TrainingConfig.from_dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, ConfigError) as error:
            raise RunError(f"{path} is not the config of a run ({error})") from error

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def forget_metrics_after(self, step: int) -> None:
        """Drop the lines of steps that are about to be done again."""
        if not self.metrics_file.exists():
            return
        lines = self.metrics_file.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        self.metrics_file.write_text("".join(kept))


def open_run(folder: Path, config: TrainingConfig) -> Run:
    """Make the folder of a run, or resume the one that is there.

    Raises RunError if it was written by other settings, or is some other folder.
    """
    run = Run(folder)
    if (folder / CONFIG_FILE).exists():
        changed = differences(run.config(), config)
        if "data_digest" in changed:
            raise RunError(
                f"{folder} was trained on other images than {config.data.path} or the data set has now; "
                "choose another --name, or bring the old images back"
            )
        if changed:
            listed = ", ".join(f"{option(name)} {old} -> {new}" for name, (old, new) in changed.items())
            raise RunError(
                f"{folder} was written by other settings ({listed}); choose another --name, or the old settings"
            )
    elif folder.exists() and any(folder.iterdir()):
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


def _checkpoint_times(folder: Path) -> list[float]:
    return sorted((path.stat().st_mtime for path in checkpoint_files(Run(folder).checkpoints)), reverse=True)
