"""What all trackers are given: settings, pictures, and evaluations under names of their own."""

from collections.abc import Mapping
from pathlib import Path

from ..run import Run


def settings_of(run: Run) -> dict[str, bool | int | float | str]:
    """The settings of a run by name, but for those that are not set."""
    config = run.config()
    settings = {"preset": config.preset, **config.settings(), **config.data.options.to_dict()}
    return {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}


def samples_picture(run: Run, step: int) -> Path:
    """The PNG of the samples of a step."""
    return run.samples / f"step_{step:08d}.png"


def evaluation_figures(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures of an evaluation as evaluation/NAME."""
    return {f"evaluation/{name}": value for name, value in figures.items()}
