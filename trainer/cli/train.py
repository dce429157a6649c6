"""`bgan train` and `bgan presets`: the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..common.signals import held_back
from ..config import training as settings
from ..config.checks import option
from ..config.presets import PRESETS, default_preset, preset_values, shown_default
from .options import (
    Axes,
    BernoulliSeed,
    Binarize,
    Channels,
    Data,
    DataDir,
    Fit,
    Invert,
    Key,
    LabelsKey,
    RowShape,
    RunsDir,
    Size,
    SkipBad,
    Threshold,
    image_options,
    own_images,
)


def _preset_option(setting: str, text: str) -> Any:
    """An option whose default is the preset's."""
    return typer.Option(help=text, show_default=shown_default(setting))


def train(
    context: typer.Context,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings to begin from: modern, paper or published; other options go before them.",
            show_default="modern; paper with --objective wgan-gp, wgan or gan",
        ),
    ] = None,
    neuron: Annotated[
        str, typer.Option(help="Output neurons: dbn (deterministic), sbn (stochastic) or real (sigmoid).")
    ] = "dbn",
    training_neuron: Annotated[
        str | None,
        typer.Option(
            help="Output neurons while training, if others.",
            show_default="sbn for a cnn's dbn; paper: as --neuron",
        ),
    ] = None,
    network: Annotated[
        str,
        _preset_option("network", "The generator, and with it the discriminator: mlp, cnn or doubling-cnn."),
    ] = "mlp",
    discriminator: Annotated[
        str | None,
        typer.Option(
            help="The discriminator, if it is another one: mlp, cnn, wide-mlp or strided-cnn, "
            "or several that judge side by side: mlp+strided-cnn.",
            show_default="mlp+strided-cnn, mlp for mlp; paper: as the generator",
        ),
    ] = None,
    objective: Annotated[
        str,
        _preset_option(
            "objective", "wgan-gp, wgan (weight clipping), gan, or relativistic: in pairs, with R1 and R2."
        ),
    ] = "wgan-gp",
    dataset: Annotated[
        str,
        typer.Option(
            help="mnist, digits (bundled, 8x8 upscaled), or auto: mnist if it can be had, else digits; "
            "fashion-mnist, kmnist, qmnist, omniglot, emnist-letters, ..."
        ),
    ] = "auto",
    data: Data = None,
    data_dir: DataDir = None,
    epochs: Annotated[int, typer.Option(help="Epochs to train. More of them extend a run.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images per batch.")] = 64,
    learning_rate: Annotated[float, _preset_option("learning_rate", "Learning rate of both networks.")] = 1e-4,
    discriminator_learning_rate: Annotated[
        float | None,
        typer.Option(help="Learning rate of the discriminator.", show_default="that of both; 2e-3 for mlp"),
    ] = None,
    learning_rate_decay: Annotated[
        str,
        _preset_option(
            "learning_rate_decay",
            "linear or cosine, to 0 after the last step, which more epochs cannot extend; or none.",
        ),
    ] = "none",
    optimizer: Annotated[
        str | None,
        typer.Option(help="adam or rmsprop.", show_default="rmsprop for wgan, else adam"),
    ] = None,
    adam_beta1: Annotated[float, _preset_option("adam_beta1", "Adam's decay of the mean gradient.")] = 0.5,
    adam_beta2: Annotated[
        float,
        _preset_option("adam_beta2", "Adam's decay of the mean squared gradient."),
    ] = 0.9,
    optimizer_form: Annotated[
        str, typer.Option(help="torch, or tensorflow: as TF1 places epsilon and starts RMSProp.")
    ] = "torch",
    discriminator_steps: Annotated[
        int | None,
        typer.Option(
            help="Discriminator steps per generator step.", show_default="5 for wgan-gp and wgan, else 1"
        ),
    ] = None,
    discriminator_bursts: Annotated[
        bool, typer.Option(help="100 discriminator steps in the first 25 iterations and in every 500th.")
    ] = False,
    fresh_batches: Annotated[
        bool, typer.Option(help="New images and latents for every step, or one batch of each an iteration.")
    ] = True,
    training_split: Annotated[
        str, typer.Option(help="Train on the train split, or on all images, which leaves none to measure with.")
    ] = "train",
    generator_norm: Annotated[
        str, typer.Option(help="batch (hidden layers), or affine: the published code's, without statistics.")
    ] = "batch",
    discriminator_norm: Annotated[
        str, typer.Option(help="none, batch or affine, in the discriminator's hidden layers.")
    ] = "none",
    initialization: Annotated[str, _preset_option("initialization", "he or truncated-normal.")] = "he",
    output_bias: Annotated[
        str,
        _preset_option(
            "output_bias", "The generator's initial output bias: zero, or mean, the logit of the mean image."
        ),
    ] = "zero",
    ema_decay: Annotated[
        float,
        _preset_option(
            "ema_decay",
            "Decay of the averaged generator, which is then sampled and exported; 0: none is kept.",
        ),
    ] = 0.0,
    penalty_weight: Annotated[
        float | None,
        typer.Option(
            help="Weight of the gradient penalty (wgan-gp), or gamma of R1 and R2 (relativistic).",
            show_default="2; paper: 10",
        ),
    ] = None,
    clip_value: Annotated[float, typer.Option(help="Bound on the discriminator's weights (wgan).")] = 0.01,
    latent_size: Annotated[int, typer.Option(help="Latent variables per image.")] = 128,
    estimator: Annotated[
        str,
        typer.Option(
            help=f"Gradient through binary neurons: {', '.join(settings.ESTIMATORS)}.",
            show_default="reinmax; paper, mlp: sigmoid-adjusted",
        ),
    ] = "sigmoid-adjusted",
    estimator_samples: Annotated[
        int | None,
        typer.Option(help="Images drawn of each latent.", show_default="8 for reinforce-loo, 20 for bgan"),
    ] = None,
    estimator_temperature: Annotated[
        float | None,
        typer.Option(
            help="Temperature of a relaxation; rebar and relax learn theirs.",
            show_default="0.5 for st-gumbel and concrete, 0.1 for rebar and relax",
        ),
    ] = None,
    conditional: Annotated[
        bool, typer.Option(help="Make images of classes, those of the data set's labels, which both networks see.")
    ] = False,
    augment: Annotated[
        str,
        typer.Option(
            help="For small sets, what real and generated images pass through before they are judged: translate "
            "(shifts of up to an eighth of a side) or translate:PIXELS, hflip, vflip, joined by +; or none."
        ),
    ] = "none",
    slope_rate: Annotated[
        float,
        _preset_option("slope_rate", "The neurons' slope is multiplied by this after each epoch."),
    ] = 1.1,
    slope_cap: Annotated[
        float | None, typer.Option(help="The slope never exceeds this.", show_default="none")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides weights, data order and noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda, ...")] = "auto",
    name: Annotated[str | None, typer.Option(help="The run's name.", show_default="from the settings")] = None,
    key: Key = None,
    labels_key: LabelsKey = None,
    row_shape: RowShape = None,
    axes: Axes = None,
    channels: Channels = "grey",
    binarize: Binarize = None,
    threshold: Threshold = None,
    bernoulli_seed: BernoulliSeed = 0,
    invert: Invert = False,
    size: Size = None,
    fit: Fit = None,
    skip_bad: SkipBad = False,
    runs_dir: RunsDir = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings and stop.")] = False,
) -> None:
    """Train a GAN with binary output neurons.

    The same command again goes on with a run that was stopped; Ctrl-C saves first.

    Examples: bgan train --neuron sbn --dataset mnist;  bgan train --objective gan --epochs 5;  bgan train --preset
    published --network cnn
    """
    from rich.console import Console

    given = _given_settings(context)
    preset = preset or default_preset(given.get("objective"))
    preset_settings = preset_values(preset, neuron=neuron, network=given.get("network"))
    config = settings.TrainingConfig(
        **{"data_dir": str(data_dir) if data_dir else None, **preset_settings, **given},
        **_images(context, data),
    )
    console = Console(stderr=True)
    with held_back():
        from ..common.console import say, warn
        from ..config.run_name import default_name
        from ..data.catalog import choose_dataset
        from ..training.loop import planned_sizes
        from ..training.loop import train as run_training

    if config.data is None:
        dataset = choose_dataset(config.dataset, data_dir=config.data_dir, say=lambda text: say(console, text))
        config = config.resolved(dataset=dataset)
    folder = runs_dir / (name or default_name(config))
    if dry_run:
        say(console, planned_sizes(config, console))
        typer.echo(json.dumps({"run": str(folder), **config.to_dict()}, indent=2))
        return
    run_training(config, folder, console, warn)
    typer.echo(f"{folder}\nnext: bgan export {folder.name}")


def presets() -> None:
    """List the presets of `bgan train --preset`, and what each changes."""
    from rich.console import Console
    from rich.table import Table

    paper = settings.TrainingConfig().to_dict()
    console = Console()
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
        console.print(table)
    console.print("An empty place is the same as the preset's. Train with one: bgan train --preset NAME")


def _given_settings(context: typer.Context) -> dict[str, Any]:
    """The training settings that the user gave as options."""
    return {
        name: value
        for name, value in context.params.items()
        if name in settings.SETTING_NAMES - {"data_dir", "data"}  # paths
        and (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
    }


def _images(context: typer.Context, data: Path | None) -> dict[str, Any]:
    """The settings that say which images to train on, but for a data set by name."""
    if data is None:
        return {"image_options": image_options(context)}
    choice = own_images(context, data)
    return {"dataset": choice.dataset, "data": choice.data, "image_options": choice.options}
