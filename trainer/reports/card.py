"""Model cards: what a model file is, how it came about and what was measured of it, as Markdown."""

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgan.v1 import model_pb2

from ..common.errors import RunError
from ..config.command import data_options, train_options, training_command
from ..config.setting import option
from ..config.training import TrainingConfig
from ..evaluation.evaluate import Evaluation, no_difference
from ..evaluation.generator import TrainedGenerator
from ..evaluation.metrics.table import METRICS, Figures
from ..evaluation.reference import Reference
from ..exporting.model_file import NEURONS, OnnxModel
from ..training.run import Run, find_run

_TEMPLATE = """\
# {manifest.name}

A generator of binary images [{shape}] with {neurons} output neurons
([BinaryGAN](https://arxiv.org/abs/1810.04714)), trained on {reference.dataset}. `bgan serve` streams its images,
`bgan generate` writes them into files.
{picture}
| | |
| --- | --- |
| file | `{file}`, {size:,} bytes of ONNX |
| SHA-256 | `{sha256}` |
| network | `{manifest.network}`{inner} |
| inputs | `latents`, float32 [batch, {manifest.latent_size}], standard normal{uniforms}{labels}{inner_uniforms} |
| outputs | `images`, uint8 of 0 and 1, and `probabilities`, float32, both [batch, {shape}]{gates_output} |
| a pixel is on | {rule} |
| the same bits | {promise} |

## Training

{data} It was trained on {trained_on}. SHA-256 of
the {training_count:,} binary training images, one byte a pixel: `{data_sha256}`.

    {training_command}
    {export_command}

{training[steps]:,} iterations, to the end of epoch {training[epochs]}, took {minutes:.1f} minutes on
{training[device]} ({threads}, {training[system]}, {training[machine]}),
with bgan {training[versions][bgan]}, torch {training[versions][torch]} and Python {training[python]}.

## Figures

Of {evaluation.count:,} samples:
`{evaluate_command}`.
Metrics of two sets compare {evaluation.compared:,} images of each. The floor is the same metric of real test
images against real training images, and to training images that of other training images.{published_note} ±: the
standard error over draws of samples.

{figures}
{differences}{classes}{gates}
## Licence

- Weights: {licence}.
- Data: {data_licence}
"""

_PARTS_SHOWN = 16  # of more gates, no table by class
_NAMES = {value: name for name, value in NEURONS.items()}
_NEURONS = {"dbn": "deterministic binary", "sbn": "stochastic binary", "real": "real-valued"}
# When a pixel is on, and the input that decides it.
_BINARIZATIONS = {
    model_pb2.BINARIZATION_THRESHOLD: ("where its probability is above 0.5", ""),
    model_pb2.BINARIZATION_BERNOULLI: (
        "with its probability: where its uniform is below it",
        "; `uniforms`, float32 in [0, 1), shaped as the images",
    ),
}
_INTEGERS = (
    "on every machine, with every version of onnxruntime: integers decide them. SHA-256 of the first 1,024 images "
    "of seed 0, packed: `{sha256}`"
)
_FLOATS = "on CPUs of one class, with one version of onnxruntime: floats decide them"
# What each data set is, and its licence.
_DATA = {
    "mnist": (
        "MNIST (LeCun, Cortes and Burges): handwritten digits; every nonzero intensity becomes 1.",
        "MNIST is usually said to be under CC BY-SA 3.0, with Yann LeCun and Corinna Cortes as holders of its "
        "copyright, as the documentation of Keras has it. No image of it is in the file.",
    ),
    "digits": (
        "The digits that come with scikit-learn (Alpaydin and Kaynak 1998), 8x8 pixels, enlarged to 28x28.",
        "scikit-learn has them from the UCI repository, and states no licence of their own. No image of them is "
        "in the file.",
    ),
}
_SPLITS = {"train": "the training images alone", "all": "the training and the test images"}
_NOT_STATED = "none is stated"
_PUBLISHED = "samples of the published code (MLP, DBN, WGAN-GP, 20 epochs)"
_LEFT_OUT = "preactivations"  # neither the floor nor the published samples have them


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A model file, and the run that it was exported from."""

    path: Path
    manifest: model_pb2.Model
    generator: TrainedGenerator
    config: TrainingConfig
    training: dict[str, Any]
    """The run's report: what the training took, and on what."""

    @property
    def card(self) -> Path:
        """Where its card goes: beside it."""
        return self.path.with_suffix(".md")


def open_trained_model(path: Path, runs_dir: Path) -> TrainedModel:
    """A model file and its run, found by the name in its manifest.

    Raises SamplesError where the file is no model, and RunError where its run is not there, is unfinished or was
    resumed since.
    """
    manifest = OnnxModel(path).manifest
    exported = manifest.training_run
    run = find_run(exported.name, runs_dir)
    training = _training(run)
    if training["steps"] != exported.step:
        raise RunError(
            f"{path} was exported at step {exported.step} of {run.folder}, which ended at {training['steps']}; "
            f"export it again: bgan export {run.name} --models {path.parent}"
        )
    generator = TrainedGenerator.from_model(path)
    return TrainedModel(path=path, manifest=manifest, generator=generator, config=run.config(), training=training)


def card_text(
    model: TrainedModel,
    evaluation: Evaluation,
    reference: Reference,
    *,
    published: Figures | None = None,
    licence: str | None = None,
    picture: str | None = None,
) -> str:
    """The card of a model; `published` are the figures of the published code, `picture` is a link."""
    manifest, config, threads = model.manifest, model.config, model.training["threads"]
    content = model.path.read_bytes()
    rule, uniforms = _BINARIZATIONS[manifest.binarization]
    classes = f"; `labels`, int64 [batch], of the classes {', '.join(manifest.classes)} (from 0)"
    data, data_licence = _data(config)
    if _is_integer(manifest) and not uniforms:
        rule = "where its logit, an integer, is above 0"
    return _TEMPLATE.format(
        manifest=manifest,
        shape=", ".join(map(str, model.generator.image_shape)),
        training=model.training,
        evaluation=evaluation,
        reference=reference,
        neurons=_NEURONS[config.neurons.neuron],
        picture=f"\n![Samples of the models]({picture})\n" if picture else "",
        file=model.path.name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        uniforms=uniforms,
        labels=classes if manifest.classes else "",
        rule=rule,
        promise=_INTEGERS.format(sha256=manifest.images_sha256) if _is_integer(manifest) else _FLOATS,
        data=data,
        trained_on=_SPLITS[config.optimization.training_split],
        training_count=len(reference.training),
        data_sha256=hashlib.sha256(reference.training.tobytes()).hexdigest(),
        training_command=training_command(config, manifest.training_run.name),
        export_command=_export_command(manifest, config),
        minutes=model.training["seconds"] / 60,
        threads=f"{threads} thread{'' if threads == 1 else 's'}",
        published_note=f" Published code: {_PUBLISHED}." if published else "",
        evaluate_command=_evaluate_command(model.path.name, config, evaluation.count),
        figures=_figures(evaluation, published),
        differences=_differences(evaluation, published),
        classes=_classes(evaluation, reference),
        **inner_words(manifest),
        licence=licence or _NOT_STATED,
        data_licence=data_licence,
    )


def inner_words(manifest: model_pb2.Model) -> dict[str, str]:
    """What a card says of the neurons within the generator, by place in the template."""
    own, count = manifest.gates, manifest.inner_uniform_count
    words = dict.fromkeys(("inner", "inner_uniforms", "gates_output", "gates"), "")
    if count:
        words["inner_uniforms"] = f"; `inner_uniforms`, float32 [batch, {count}] in [0, 1)"
    if manifest.hidden_neuron:
        words["inner"] = f", its last hidden layer of {_NEURONS[_NAMES[manifest.hidden_neuron]]} neurons"
    if own.count:
        words["inner"] = f", of a trunk and {own.count} parts behind {_NEURONS[_NAMES[own.neuron]]} gates"
        words["gates_output"] = f"; `gates`, uint8 [batch, {own.count}], 1 where a part ran"
        words["gates"] = _gates_section(manifest)
    return words


def _gates_section(manifest: model_pb2.Model) -> str:
    """The section on gates: how often they are on, and for which classes."""
    own, shares = manifest.gates, list(manifest.gates.active_shares)
    text = (
        "\n## Gates\n\n"
        "For each image its gates decide which parts run beside the trunk; the others cost no time. "
        f"Of {own.count} parts {100 * own.mean_active_share:.0f} % run for an image on average (training aimed at "
        f"{100 * own.rate:g} %), the least busy for {100 * min(shares):.0f} % of the images, the busiest for "
        f"{100 * max(shares):.0f} %.\n"
    )
    rows = [(name, own.class_active_shares[i * own.count :]) for i, name in enumerate(manifest.classes)]
    if not own.class_active_shares or own.count > _PARTS_SHOWN:
        return text
    lines = [["class", *(f"part {part}" for part in range(own.count))], ["---", *["---:"] * own.count]]
    lines += [[name, *(f"{100 * share:.0f}" for share in row[: own.count])] for name, row in rows]
    return f"{text}\nShare of the images of each class for which a part runs, %:\n\n{_table(lines)}"


def _is_integer(manifest: model_pb2.Model) -> bool:
    return manifest.arithmetic == model_pb2.ARITHMETIC_INTEGER


def _export_command(manifest: model_pb2.Model, config: TrainingConfig) -> str:
    """The `bgan export` that writes a model file."""
    run, is_drawn = manifest.training_run.name, manifest.binarization == model_pb2.BINARIZATION_BERNOULLI
    words = ["bgan", "export", run]
    words += [] if manifest.name == run else ["--name", manifest.name]
    if is_drawn != (config.neurons.neuron == "sbn"):
        words += ["--binarization", "bernoulli" if is_drawn else "threshold"]
    words += ["--arithmetic", "integer"] if _is_integer(manifest) else []
    return shlex.join(words)


def _evaluate_command(file: str, config: TrainingConfig, count: int) -> str:
    """The `bgan evaluate` that measures a model file."""
    images = {"dataset": config.data.dataset} if config.data.path is None else data_options(config)
    options = train_options({**images, **config.data.options.changed(), "count": count})
    return shlex.join(["bgan", "evaluate", file, *options])


def _training(run: Run) -> dict[str, Any]:
    """The report of a run. Raises RunError where it has none yet."""
    try:
        training: dict[str, Any] = json.loads(run.report_file.read_bytes())
        return training
    except FileNotFoundError:
        raise RunError(f"{run.folder} is not finished; resume it with the command that made it") from None
    except ValueError as error:
        raise RunError(f"{run.report_file} cannot be read ({error})") from error


def _data(config: TrainingConfig) -> tuple[str, str]:
    """What is known of the images, and of their licence."""
    if config.data.path is None and config.data.dataset in _DATA and not config.data.options.changed():
        return _DATA[config.data.dataset]
    how = ", ".join(f"{option(name)} {value}" for name, value in config.data.options.changed().items())
    kind = "images of a file or folder" if config.data.path else "a published set"
    return f"{config.data.dataset}: {kind}{f', read with {how}' if how else ''}.", _NOT_STATED


def _figures(evaluation: Evaluation, published: Figures | None) -> str:
    columns = {"this model": evaluation.figures, "real test images (floor)": evaluation.floor_figures}
    if published:
        columns["published code"] = published
    lines = [["metric", *columns, "better"], ["---", *["---:"] * len(columns), "---"]]
    for key, metric in METRICS.items():
        if metric.group != _LEFT_OUT and key in evaluation.metrics:
            values = [column.text(key) for column in columns.values()]
            lines.append([metric.title, *values, metric.better])
    return _table(lines)


def _table(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _differences(evaluation: Evaluation, published: Figures | None) -> str:
    """A line for each column in which figures of the model are as well as met."""
    own = ("this model", evaluation.figures)
    others = [("real images", evaluation.floor_figures)]
    if published:
        others.append(("the published code", published))
    lines = [f"{line} (within two errors).\n" for other in others for line in no_difference([own, other])]
    return "\n".join(line[0].upper() + line[1:] for line in lines) + ("\n" if lines else "")


def _classes(evaluation: Evaluation, reference: Reference) -> str:
    if evaluation.class_histogram is None or reference.classifier_accuracy is None:
        return ""
    how = f"by a classifier that is right on {100 * reference.classifier_accuracy:.2f} % of the test images"
    return f"Share of each class, %: {evaluation.class_percents()}, {how}.\n"
