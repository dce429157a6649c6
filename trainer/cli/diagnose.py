"""`bgan diagnose-gradients`: the command and its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DataDir, DeviceName, JsonFile, RunName, RunsDir, note, warn, writable, wrote_json

if TYPE_CHECKING:
    from .. import Diagnosis, EstimatorDiagnosis, GradientError

PICTURE = "gradients.png"


def diagnose_gradients(
    run: RunName = None,
    of: Annotated[
        str | None,
        typer.Option(
            help="Whose gradients: output, gates or hidden.", show_default="gates or hidden, of a run with such"
        ),
    ] = None,
    estimator: Annotated[
        list[str] | None,
        typer.Option(help="Measure only these (repeatable).", show_default="all that can be used"),
    ] = None,
    neuron: Annotated[
        str | None,
        typer.Option(help="Treat these neurons as dbn or sbn.", show_default="as it was trained"),
    ] = None,
    images: Annotated[int, typer.Option(help="Latents to measure at.", min=2, max=10**4)] = 8,
    draws: Annotated[
        int, typer.Option(help="Estimates per estimator, rounded up to tens.", min=20, max=10**6)
    ] = 400,
    backgrounds: Annotated[
        int,
        typer.Option(
            help="Images per latent that are flipped for the truth, rounded up to tens; up to 8 gates need none.",
            min=20,
            max=10**6,
        ),
    ] = 40,
    seed: Annotated[int, typer.Option(help="Seed of latents, real images and noise.", min=0)] = 0,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Write the picture to this .png.",
            show_default=f"{PICTURE} in the run's folder",
            callback=writable,
        ),
    ] = None,
    json_file: JsonFile = None,
    data_dir: DataDir = None,
    device: DeviceName = "auto",
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure the gradient estimators on a trained generator and discriminator: bias, noise, cosine and cost.

    The truth comes from flips of every pixel of drawn images, so it takes minutes with a CNN. That of up to 8
    gates comes from all their patterns.

    Examples: bgan diagnose-gradients;  bgan diagnose-gradients RUN --estimator reinmax --estimator rebar --json -;
    bgan diagnose-gradients RUN --of output
    """
    from rich.console import Console

    from .. import diagnose_gradients as measure
    from .. import diagnosis_figure, find_run
    from ..common.console import progress_line

    found = find_run(run, runs_dir)
    with progress_line(Console(stderr=True)) as report:
        diagnosis = measure(
            found,
            images=images,
            draws=draws,
            backgrounds=backgrounds,
            seed=seed,
            of=of,
            estimators=estimator or (),
            neuron=neuron,
            data_dir=str(data_dir) if data_dir else None,
            device=device,
            report=report,
            warn=warn,
        )
    picture = picture or found.folder / PICTURE
    diagnosis_figure(picture, diagnosis)
    if wrote_json(diagnosis.to_dict(), json_file):
        return
    _print(diagnosis)
    note(f"picture: {picture}")


def _print(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from ..common.console import say, show_table

    baseline, unit = diagnosis.estimators[0].estimator, diagnosis.estimators[0].milliseconds
    columns: dict[str, Callable[[EstimatorDiagnosis], str]] = {
        "bias": lambda item: _bias_text(item.accuracy),
        "noise": lambda item: f"{item.accuracy.noise:.3g}",
        "cosine": lambda item: f"{item.accuracy.cosine:.3f}",
        f"in a batch of {diagnosis.batch_size}": lambda item: f"{item.batch_error:.3g}",
        "judged": lambda item: f"{item.evaluations:g}",
        "ms/image": lambda item: f"{item.milliseconds:.2f}",
        "time": lambda item: f"{item.milliseconds / unit:.1f}",
    }
    table = Table(
        "estimator",
        *(Column(title, justify="right") for title in columns),
        title=f"{escape(diagnosis.run)}, step {diagnosis.step}: {diagnosis.network}, {diagnosis.neurons}, "
        f"{diagnosis.objective}, slope {diagnosis.slope:.3g}; {diagnosis.plan.images} images",
    )
    for item in diagnosis.estimators:
        table.add_row(item.estimator, *(text(item) for text in columns.values()))
    console = Console()
    show_table(console, table)
    say(console, f"compared with {diagnosis.reference}; all relative to its norm, {diagnosis.gradient_norm:.3g}")
    say(console, f"<: no bias seen, at most that; judged: images per estimate; time: CPU, relative to {baseline}")
    for reason in dict.fromkeys(diagnosis.refused.values()):
        names = [name for name, other in diagnosis.refused.items() if other == reason]
        say(console, f"left out: {', '.join(names)}: {reason}")


def _bias_text(accuracy: GradientError) -> str:
    if not accuracy.is_biased:
        return f"< {accuracy.bias:.2g}"
    return f"{accuracy.bias:.3g} ± {accuracy.bias_error:.1g}" if accuracy.bias_error else f"{accuracy.bias:.3g}"
