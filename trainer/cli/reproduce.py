"""`bgan reproduce`: the command."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..common.errors import SamplesError
from .options import DataDir


def reproduce(
    experiment: Annotated[
        list[str] | None, typer.Option(help="I, II, III or IV (repeatable).", show_default="all")
    ] = None,
    preset: Annotated[
        list[str] | None, typer.Option(help="published or paper (repeatable).", show_default="both")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of each run.", show_default="20", min=1, max=10**6)
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each model, from seed 0.", min=1, max=10**4)] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Trainings at once, which share the cores.",
            show_default="1, or with --quick or --ray one for each core",
            min=1,
            max=1024,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Train on a Ray cluster whose nodes share this folder: its address, or auto.",
            show_default="on this machine",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="All of it in minutes: bundled digits, 5 epochs, no bursts of discriminator steps."
        ),
    ] = False,
    dataset: Annotated[str, typer.Option(help="mnist, digits, or auto: mnist if it can be had.")] = "auto",
    data_dir: DataDir = None,
    count: Annotated[
        int | None, typer.Option(help="Samples to measure per model.", show_default="10000", min=64, max=10**7)
    ] = None,
    published_samples: Annotated[
        Path | None,
        typer.Option(help="Samples of the published code (.npz), shown in the first row of each table."),
    ] = None,
    train: Annotated[bool, typer.Option(help="Train what is missing, or only report what is there.")] = True,
    output: Annotated[
        Path | None, typer.Option(help="Folder for all of it.", show_default="reproduction or reproduction-quick")
    ] = None,
) -> None:
    """Run the paper's experiments, measure them, and write one report: report.md, report.html and figures.

    The same command resumes what was stopped. Earlier experiments in the folder stay in the report, so you may run
    them one by one and at different lengths.

    Examples: bgan reproduce --quick;  bgan reproduce --experiment I --experiment II --seeds 3 --jobs 2
    """
    from rich.console import Console

    from .. import COMPARED_PRESETS, PLANS, Reproduction, check_experiments, choose_dataset, chosen
    from ..common.console import say

    console = Console(stderr=True)
    names = check_experiments(experiment or ())
    presets = chosen("preset", preset or (), COMPARED_PRESETS)
    if published_samples is not None and not published_samples.is_file():
        raise SamplesError(f"there is no file {published_samples}")
    data_folder = str(data_dir) if data_dir else None
    plan = PLANS["quick" if quick else "full"]
    each = plan.experiments[names[0]]
    each = replace(each, presets=presets, epochs=epochs or each.epochs, seeds=seeds)
    plan = replace(
        plan,
        dataset=choose_dataset(
            plan.dataset if dataset == "auto" else dataset, data_dir=data_folder, say=partial(say, console)
        ),
        count=count or plan.count,
        experiments=dict.fromkeys(names, each),
        folder=output or plan.folder,
        jobs=jobs or (plan.jobs if ray is None else None),
    )
    reproduction = Reproduction(plan, data_dir=data_folder, console=console)
    if train:
        reproduction.train(ray=ray)
    typer.echo(f"{reproduction.report(published_samples)}\nthe same as one page: report.html next to it")
