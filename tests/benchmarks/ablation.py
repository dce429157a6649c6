"""Trains the modern recipe with one change a line, on several seeds, and prints what each change does.

Training images that are held out for validation decide, not the test images.

Runs, one a core, and evaluations lie in runs/ablation: the same command resumes them.
"""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev

from rich.console import Console

from bgan.trainer.common.files import write_json
from bgan.trainer.config.estimators import ESTIMATORS
from bgan.trainer.config.images import DatasetSpec
from bgan.trainer.config.presets import preset_values
from bgan.trainer.config.training import TrainingConfig
from bgan.trainer.evaluation.generator import TrainedGenerator
from bgan.trainer.evaluation.metrics.table import METRICS, MetricInputs, measure
from bgan.trainer.evaluation.reference import load_reference
from bgan.trainer.reports.reproduction.jobs import Job, run_jobs
from bgan.trainer.training.run import Run

FOLDER = Path("runs/ablation")
COUNT = 10_000
VALIDATION_IMAGES = 5_000
COLUMNS = {
    "frechet_distance": ("Frechet distance", 1),
    "isolated_pixels": ("isolated pixels", 3),
    "components": ("components", 2),
    "coverage": ("coverage", 3),
    "least_class": ("least class", 3),
    "seconds": ("seconds", 0),
}
_AS_DBN = {"training_neuron": "dbn", "estimator": "sigmoid-adjusted"}
MODELS = {
    "cnn-dbn": {"neuron": "dbn"},
    "cnn-sbn": {"neuron": "sbn"},
    "mlp-dbn": {"neuron": "dbn", "network": "mlp"},
    "estimators": {"neuron": "sbn", "network": "mlp"},
}
CHANGES = {
    "cnn-dbn": {
        "the recipe": {},
        "no EMA": {"ema_decay": 0.0},
        "constant learning rate": {"learning_rate_decay": "none"},
        "output bias 0": {"output_bias": "zero"},
        "He weights": {"initialization": "he"},
        "discriminator: mlp": {"discriminator": "mlp"},
        "discriminator: strided-cnn": {"discriminator": "strided-cnn"},
        "gan (no pairs, no penalty)": {"objective": "gan"},
        "wgan-gp, 1 discriminator step": {
            "objective": "wgan-gp",
            "discriminator_steps": 1,
            "penalty_weight": 10.0,
        },
        "trained as dbn": _AS_DBN,
        "straight-through, not reinmax": {"estimator": "sigmoid-adjusted"},
        "batch 128, half the steps": {"batch_size": 128},
        "the published cnn generator": {"network": "cnn"},
        "the paper's settings": {"preset": "paper", "network": "mlp"},
        "class-conditional": {"conditional": True},
        "class-conditional, discriminator: mlp": {"conditional": True, "discriminator": "mlp"},
    },
    "cnn-sbn": {
        "the recipe": {},
        "straight-through, not reinmax": {"estimator": "sigmoid-adjusted"},
        "the paper's settings": {"preset": "paper", "network": "mlp"},
    },
    "mlp-dbn": {
        "the recipe": {},
        "learning rate to 0": {"learning_rate_decay": "cosine"},
        "discriminator: mlp+strided-cnn": {"discriminator": "mlp+strided-cnn"},
        "trained as sbn, reinmax": {"training_neuron": "sbn", "estimator": "reinmax"},
        "class-conditional": {"conditional": True},
        "class-conditional, learning rate to 0": {"conditional": True, "learning_rate_decay": "cosine"},
        "class-conditional, discriminator: mlp+strided-cnn": {
            "conditional": True,
            "discriminator": "mlp+strided-cnn",
        },
    },
    "estimators": {
        f"{name}{', gan' if objective else ''}": {"estimator": name, **objective}
        for names, objective in (
            ([name for name, entry in ESTIMATORS.items() if not entry.needs_density_ratio], {}),
            (["sigmoid-adjusted", "bgan", "maligan"], {"objective": "gan"}),
        )
        for name in names
    },
}


def main() -> None:
    """Train, measure, and print a Markdown table for each model."""
    parser = argparse.ArgumentParser(prog="make ablation", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--changes", nargs="+", help="lines by their names (default: all)")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one a core)")
    parser.add_argument("--ray", help="a Ray cluster whose nodes share this folder: its address, or auto")
    options = parser.parse_args()
    jobs = {
        (model, change, seed): _job(model, change, seed, options.epochs)
        for model in options.models
        for seed in range(options.seeds)
        for change in CHANGES[model]
        if options.changes is None or change in options.changes
    }
    if not jobs:
        parser.error(f"--changes: no line of {', '.join(options.models)} is called so")
    console = Console(stderr=True)
    waiting = [job for job in jobs.values() if not Run(job.folder).report_file.exists()]
    failed = run_jobs(waiting, options.jobs, console, ray=options.ray)
    reference = load_reference(
        DatasetSpec(dataset="mnist", validation_images=VALIDATION_IMAGES), split="validation"
    )
    measured = {key: _measured(job, reference) for key, job in jobs.items() if job.name not in failed}
    print(_circumstances(options))
    for model in options.models:
        _print_table(model, measured)
    for name, reason in failed.items():
        print(f"{name}: {reason}")


def _job(model, change, seed, epochs):
    settings = {"preset": "modern", **MODELS[model], **CHANGES[model][change]}
    network = MODELS[model].get("network")  # a line that changes it changes nothing else
    preset = preset_values(settings["preset"], neuron=settings["neuron"], network=network)
    data = {"dataset": "mnist", "validation_images": VALIDATION_IMAGES}
    config = TrainingConfig.resolve(**{**preset, **settings, **data, "seed": seed, "epochs": epochs})
    number = list(CHANGES[model]).index(change)
    name = f"{model}-{number:02}-seed{seed}-epochs{epochs}"
    return Job(config, FOLDER / "runs" / name, FOLDER / "logs" / f"{name}.log")


def _measured(job, reference):
    """The columns of a run, from its file where it was measured before."""
    path = FOLDER / "evaluations" / f"{job.name}.json"
    if not path.exists():
        samples = TrainedGenerator.from_run(Run(job.folder)).sample(COUNT)
        compared = min(COUNT, len(reference.test))
        inputs = MetricInputs(
            samples, reference.test, reference, compared=compared, seed=0, report=lambda text: None
        )
        figures = measure(inputs, [name for name in COLUMNS if name in METRICS])  # all of them take minutes a run
        write_json(path, {**figures.values, "least_class": float(inputs.class_shares.min())})
    seconds = json.loads(Run(job.folder).report_file.read_text())["seconds"]
    return {**json.loads(path.read_text()), "seconds": seconds}


def _circumstances(options):
    stamp = datetime.now(UTC).date().isoformat()
    where = "nodes of a Ray cluster" if options.ray else f"{os.cpu_count()} cores"
    return (
        f"{stamp}, {where} ({platform.machine()}), {options.jobs or 'as many'} runs at once with a thread each, "
        f"{options.epochs} epochs, {options.seeds} seeds: mean ± standard deviation; the least of the seconds, "
        "which other work on the machine adds to."
    )


def _print_table(model, measured):
    titles = [title for title, _ in COLUMNS.values()]
    print("", f"| {model} | {' | '.join(titles)} |", f"| --- {'| --- ' * len(titles)}|", sep="\n")
    for change in CHANGES[model]:
        found = [values for (of, what, _), values in measured.items() if (of, what) == (model, change)]
        if found:
            print(f"| {change} | {' | '.join(_spread(found, key) for key in COLUMNS)} |")


def _spread(found, key):
    digits = COLUMNS[key][1]
    values = [values[key] for values in found if key in values]
    if key == "seconds":
        return f"{min(values):.{digits}f}"
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if values else "-"
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
