"""`bgan train` and `bgan presets`: the commands."""

import json
import os
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config.file import as_toml, read_settings
from ..config.images import HELD_OUT_FILES, DatasetSpec, ImageOptions
from ..config.presets import PRESETS, default_preset, preset_values
from ..config.setting import option
from ..config.training import (
    SETTINGS,
    NetworkConfig,
    NeuronConfig,
    ObjectiveConfig,
    OptimizationConfig,
    RunConfig,
    TrainingConfig,
)
from .options import (
    RunsDir,
    completion,
    given_settings,
    held_out,
    image_options,
    named_images,
    warn,
    with_settings,
)

_CLASSES = {"conditional", "clusters"}


@with_settings(
    {
        "Data": DatasetSpec,
        "How images are read": ImageOptions,
        "Networks": NetworkConfig,
        "Neurons": NeuronConfig,
        "Objective": ObjectiveConfig,
        "Optimization": OptimizationConfig,
        "Run": RunConfig,
    }
)
def train(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar=f"<{'|'.join(PRESETS)}>",
            autocompletion=completion(PRESETS),
            help="Settings to start from; a file and options override them.",
            show_default="modern; paper with --objective wgan-gp, wgan or gan",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A file of settings: TOML, as --print-config writes it, or a run's config.json, to repeat that "
            "run. Options override it.",
            show_default=False,
        ),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as a TOML file, with comments, and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the settings and the sizes of the networks, and stop.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="The run's name.", show_default="from the settings", rich_help_panel="Run")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    **_: Any,
) -> None:
    """The same command again resumes a run that was stopped; Ctrl-C saves first.

    Examples: bgan train --neuron sbn --dataset mnist;  bgan train --objective gan --epochs 5;  bgan train --preset
    published --network cnn;  bgan train --config runs/NAME/config.json --seed 1
    """
    given = _given(context, config)
    settings = _settings(given)
    classes_are_open = _CLASSES.isdisjoint(given) and PRESETS[settings.preset or "paper"].is_conditional
    if print_config:
        typer.echo(as_toml(settings, open_ones={"conditional"} if classes_are_open else ()), nl=False)
        return
    from rich.console import Console

    from ..common.console import counting_bar, say
    from ..config.command import check_name, default_name
    from ..data.catalog import choose_dataset, has_classes
    from ..training.loop import planned_sizes
    from ..training.loop import train as run_training
    from ..training.run import CONFIG_FILE

    console = Console(stderr=True)
    if settings.data.path is None:
        found = choose_dataset(settings.data.dataset, data_dir=settings.data.data_dir, say=partial(say, console))
        settings = settings.replace(dataset=found)
    if classes_are_open:
        with counting_bar(console, f"converting {settings.data.path}") as progress:
            settings = settings.replace(conditional=has_classes(settings.data, progress=progress))
    name = name or default_name(settings)
    folder = runs_dir / name
    if not (folder / CONFIG_FILE).exists():  # one of an older version may still be resumed
        check_name(name)
    if dry_run:
        say(console, planned_sizes(settings, console))
        typer.echo(json.dumps({"run": str(folder), **settings.to_dict()}, indent=2))
        return
    run_training(settings, folder, console, warn)
    where = [] if runs_dir == Path(os.environ.get("BGAN_RUNS_DIR") or "runs") else ["--runs-dir", str(runs_dir)]
    typer.echo(f"{folder}\nnext: {shlex.join(['bgan', 'export', name, *where])}")


def presets() -> None:
    """Options override a preset.

    Example: bgan train --preset paper --neuron sbn
    """
    from rich.console import Console
    from rich.table import Table

    from ..common.console import show_table

    console, paper = Console(), TrainingConfig.resolve().settings()
    for name, preset in PRESETS.items():
        table = Table(
            "option", "preset", "paper", "what it does", title=f"{name}: {preset.summary}", title_justify="left"
        )
        for generators, setting, chosen in preset.rows():
            before = paper[setting]
            table.add_row(
                f"--{option(setting)}" + (f" ({generators})" if generators else ""),
                "(as --neuron)" if chosen.value is None else str(chosen.value),
                "" if before == chosen.value else str(before),
                chosen.reason,
            )
        show_table(console, table)
    console.print(
        "An empty cell under paper is the same as the preset's. Train with one: bgan train --preset NAME"
    )


def _given(context: typer.Context, file: Path | None) -> dict[str, Any]:
    """The settings that are given by name: options override the file."""
    given = given_settings(context)
    settings = {**(read_settings(file) if file is not None else {}), **given}
    if spec := named_images(given):  # in place of the images that the file names
        others = dict.fromkeys(("data_digest", *HELD_OUT_FILES))
        settings |= {"data": spec.path, "dataset": spec.dataset, **others}
    return settings | held_out(given)


def _settings(settings: dict[str, Any]) -> TrainingConfig:
    """The resolved settings: those that are given override the preset."""
    preset = settings.get("preset") or default_preset(settings.get("objective"))
    kind = {"neuron": settings.get("neuron", "dbn"), "network": settings.get("network")}
    own = {name: value for name, value in settings.items() if name in SETTINGS}
    return TrainingConfig.resolve(**preset_values(preset, **kind) | own, image_options=image_options(settings))
