"""`bgan train` and `bgan presets`: the commands."""

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common.errors import ConfigError
from ..config.file import as_toml, read_settings
from ..config.images import HELD_OUT_FILES, DatasetSpec, ImageOptions
from ..config.inner import InnerConfig
from ..config.presets import PRESETS, configure
from ..config.setting import option
from ..config.trackers import NO_TRACKER, TRACKERS
from ..config.training import (
    REFINED_SETTINGS,
    SETTINGS,
    NetworkConfig,
    NeuronConfig,
    ObjectiveConfig,
    OptimizationConfig,
    RunConfig,
    TrainingConfig,
)
from .options import (
    JsonFile,
    RunsDir,
    completion,
    given_settings,
    held_out,
    image_options,
    named_images,
    note,
    warn,
    with_settings,
    wrote_json,
)

if TYPE_CHECKING:
    from rich.console import Console

    from .. import World

_CLASSES = {"conditional", "clusters"}
_LAUNCHED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # what torchrun sets


@with_settings(
    {
        "Data": DatasetSpec,
        "How images are read": ImageOptions,
        "Networks": NetworkConfig,
        "Neurons": NeuronConfig,
        "Inner neurons: conditional computation, or a binary hidden layer": InnerConfig,
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
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes of this machine that train together; they share the --shards. For several machines: "
            "torchrun.",
            rich_help_panel="Run",
        ),
    ] = 1,
    tracker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<name>",
            autocompletion=completion((*TRACKERS, NO_TRACKER)),
            help=f"Where losses, samples and evaluations are shown: {', '.join(TRACKERS)}, or {NO_TRACKER}; give "
            "it several times for several. docs/trackers.md",
            show_default="tensorboard",
            rich_help_panel="Run",
        ),
    ] = None,
    **_: Any,
) -> None:
    """The same command again resumes a run that was stopped; Ctrl-C saves first.

    Examples: bgan train --neuron sbn --dataset mnist;  bgan train --objective gan --epochs 5;  bgan train --preset
    published --network cnn;  bgan train --config runs/NAME/config.json --seed 1
    """
    is_launched = os.environ.keys() >= _LAUNCHED and not (print_config or dry_run)
    if is_launched:  # what is wrong with the settings is said once, by the first process
        from .. import joined

        with joined() as world:
            world.together(partial(_check_processes, processes))
            _train(world, partial(_resolved, context, config), name, runs_dir, tracker or ["tensorboard"])
        return
    settings, open_ones = _resolved(context, config)
    if print_config:
        typer.echo(as_toml(settings, open_ones=open_ones), nl=False)
        return
    if processes > 1 and not dry_run:
        from .. import launch

        launch(processes, settings.optimization.shards)
        return
    from .. import ALONE

    _train(ALONE, lambda: (settings, open_ones), name, runs_dir, tracker or ["tensorboard"], dry_run=dry_run)


def _check_processes(count: int) -> None:
    """Raise ConfigError where --processes is not what the launcher of this process has started."""
    here = os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])
    if count not in {1, int(here)}:
        raise ConfigError(f"processes is {count}, but {here} were started here; leave out --processes")


def _train(
    world: "World",
    resolve: Callable[[], tuple[TrainingConfig, set[str]]],
    name: str | None,
    runs_dir: Path,
    trackers: list[str],
    *,
    dry_run: bool = False,
) -> None:
    """Train as one of the `world`, of whom the first settles what the data decide, and speaks for all."""
    from rich.console import Console

    from .. import CONFIG_FILE, build_trackers, planned_sizes
    from .. import train as run_training
    from ..common.console import say
    from ..config.command import check_name, default_name

    console = Console(stderr=True, quiet=not world.is_first)
    settings, open_ones = world.together(resolve)
    decided = world.together(lambda: _decided_by_data(settings, open_ones, console) if world.is_first else {})
    settings = settings.replace(**world.from_first(decided))
    name = name or default_name(settings)
    folder = runs_dir / name
    if world.is_first and not (folder / CONFIG_FILE).exists():  # one of an older version may still be resumed
        check_name(name)
    if dry_run:
        say(console, planned_sizes(settings, console))
        typer.echo(json.dumps({"run": str(folder), **settings.to_dict()}, indent=2))
        return
    warned = warn if world.is_first else lambda text: None
    callbacks = world.together(lambda: build_trackers(trackers) if world.is_first else [])
    run_training(settings, folder=folder, console=console, warn=warned, world=world, callbacks=callbacks)
    if world.is_first:
        is_usual = runs_dir == Path(os.environ.get("BGAN_RUNS_DIR") or "runs")
        where = [] if is_usual else ["--runs-dir", str(runs_dir)]
        note(f"next: {shlex.join(['bgan', 'export', name, *where])}")
        typer.echo(folder)


def _resolved(context: typer.Context, file: Path | None) -> tuple[TrainingConfig, set[str]]:
    """The settings, and the names of those that the data will decide."""
    given = _given(context, file)
    settings = _settings(given)
    are_open = _CLASSES.isdisjoint(given) and PRESETS[settings.preset or "paper"].is_conditional
    return settings, {"conditional"} if are_open else set()


def _decided_by_data(settings: TrainingConfig, open_ones: set[str], console: "Console") -> dict[str, Any]:
    """Which data set "auto" is, and whether there are classes, as settings by name."""
    from .. import choose_dataset, has_classes
    from ..common.console import counting_bar, say

    data, decided = settings.data, dict[str, Any]()
    if data.path is None:
        decided["dataset"] = choose_dataset(data.dataset, data_dir=data.data_dir, say=partial(say, console))
        data = replace(data, dataset=decided["dataset"])
    if open_ones:
        with counting_bar(console, f"converting {data.path}") as progress:
            decided["conditional"] = has_classes(data, progress=progress)
    return decided


def presets(
    json_file: JsonFile = None,
) -> None:
    """Options override a preset.

    Examples: bgan presets;  bgan presets --json;  bgan train --preset paper --neuron sbn
    """
    if not wrote_json({name: _preset_as_json(name) for name in PRESETS}, json_file):
        _print_presets()


def _preset_as_json(name: str) -> dict[str, Any]:
    rows = [
        {"setting": setting, "value": chosen.value, "generators": generators or None, "reason": chosen.reason}
        for generators, setting, chosen in PRESETS[name].rows()
    ]
    return {"summary": PRESETS[name].summary, "settings": rows}


def _print_presets() -> None:
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
    note("An empty cell under paper is the same as the preset's. Train with one: bgan train --preset NAME")


def _given(context: typer.Context, file: Path | None) -> dict[str, Any]:
    """The settings that are given by name: options override the file."""
    given = given_settings(context)
    settings = {**(read_settings(file) if file is not None else {}), **given}
    if spec := named_images(given):  # in place of the images that the file names
        others = dict.fromkeys(("data_digest", *HELD_OUT_FILES))
        settings |= {"data": spec.path, "dataset": spec.dataset, **others}
    return _with_refined(settings | held_out(given), context.params["runs_dir"])


def _with_refined(settings: dict[str, Any], runs_dir: Path) -> dict[str, Any]:
    """With those that a run which is refined decides."""
    if settings.get("refine") is None or settings.keys() >= set(REFINED_SETTINGS):
        return settings
    from .. import refined_settings

    return refined_settings(settings["refine"], runs_dir) | settings


def _settings(settings: dict[str, Any]) -> TrainingConfig:
    """The resolved settings: those that are given override the preset."""
    own = {name: value for name, value in settings.items() if name in SETTINGS}
    return configure(settings.get("preset"), image_options=image_options(settings), **own)
