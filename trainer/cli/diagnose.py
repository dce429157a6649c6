"""`bgan diagnose-gradients`: the command and its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common.signals import held_back
from .options import DataDir, RunsDir, warn

if TYPE_CHECKING:
    from ..reports.diagnosis.diagnose import Diagnosis
    from ..reports.diagnosis.gradient_error import GradientError

PICTURE = "gradients.png"


def diagnose_gradients(
    run: Annotated[
        str | None, typer.Argument(help="A run's name or folder.", show_default="the newest run")
    ] = None,
    estimator: Annotated[
        list[str] | None,
        typer.Option(help="Measure these only; may be given several times.", show_default="all that can be used"),
    ] = None,
    neuron: Annotated[
        str | None,
        typer.Option(help="Take the generator's neurons as dbn or sbn.", show_default="as it was trained"),
    ] = None,
    images: Annotated[int, typer.Option(help="Latents to diagnose at.", min=2)] = 8,
    draws: Annotated[int, typer.Option(help="Estimates of each estimator, in tens.", min=20)] = 400,
    backgrounds: Annotated[
        int,
        typer.Option(help="Images of each latent that are flipped for the truth, in tens.", min=20),
    ] = 40,
    seed: Annotated[int, typer.Option(help="Decides latents, their real images, and noise.", min=0)] = 0,
    picture: Annotated[
        Path | None,
        typer.Option(help="Where the picture goes, a .png.", show_default=f"{PICTURE} in the run's folder"),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured as JSON to this file; - prints it.")
    ] = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure the gradient estimators on a trained generator and discriminator: bias, noise, cosine and cost.

    The truth comes from flips of every pixel of drawn images, so it takes minutes with a CNN.

    Examples: bgan diagnose-gradients;  bgan diagnose-gradients RUN --estimator reinmax --estimator rebar --json -
    """
    from rich.console import Console

    with held_back():
        from ..common.console import progress_line
        from ..reports.diagnosis.diagnose import DiagnosisOptions, diagnose
        from ..reports.diagnosis.figure import diagnosis_figure
        from ..training.run import find_run

    found = find_run(run, runs_dir)
    plan = DiagnosisOptions(images=images, draws=draws, backgrounds=backgrounds, seed=seed)
    with progress_line(Console(stderr=True)) as report:
        diagnosis = diagnose(
            found,
            plan,
            estimators=estimator or (),
            neuron=neuron,
            data_dir=str(data_dir) if data_dir else None,
            report=report,
            warn=warn,
        )
    picture = picture or found.folder / PICTURE
    diagnosis_figure(picture, diagnosis)
    if json_file is not None:
        _write(json_file, diagnosis)
    if str(json_file) != "-":
        _print(diagnosis)
        typer.echo(f"the picture: {picture}")


def _write(path: Path, diagnosis: Diagnosis) -> None:
    from ..common.files import write_atomically

    content = json.dumps(_without_nan(diagnosis.to_dict()), indent=2)
    if str(path) == "-":
        typer.echo(content)
    else:
        write_atomically(path, (content + "\n").encode())


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null stands for it."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - that is NaN


def _print(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..common.console import say
    from ..reports.diagnosis.diagnose import BASELINE

    console = Console()
    table = Table(
        title=f"{diagnosis.run}, step {diagnosis.step}: {diagnosis.network}, {diagnosis.neuron}, "
        f"{diagnosis.objective}, slope {diagnosis.slope:.3g}; {diagnosis.plan.images} images"
    )
    table.add_column("estimator")
    for title in (
        "bias",
        "noise",
        "cosine",
        f"in a batch of {diagnosis.batch_size}",
        "judged",
        "ms/image",
        "time",
    ):
        table.add_column(title, justify="right")
    for item in diagnosis.estimators:
        accuracy = item.accuracy
        table.add_row(
            item.estimator,
            bias_text(accuracy),
            f"{accuracy.noise:.3g}",
            f"{accuracy.cosine:.3f}",
            f"{item.batch_error:.3g}",
            f"{item.evaluations:g}",
            f"{item.milliseconds:.2f}",
            f"{diagnosis.time_ratio(item):.1f}",
        )
    console.print(table)
    say(console, f"compared with {diagnosis.reference}; all relative to its norm, {diagnosis.gradient_norm:.3g}")
    say(console, f"<: no bias seen, at most that; judged: images per estimate; time: CPU, relative to {BASELINE}")
    for reason in dict.fromkeys(diagnosis.refused.values()):
        names = [name for name, other in diagnosis.refused.items() if other == reason]
        say(console, f"left out: {', '.join(names)}: {reason}")


def bias_text(accuracy: GradientError) -> str:
    """The bias with its standard error, or the bound where none is seen."""
    if not accuracy.is_biased:
        return f"< {accuracy.bias:.2g}"
    return f"{accuracy.bias:.3g} ± {accuracy.bias_error:.1g}" if accuracy.bias_error else f"{accuracy.bias:.3g}"
