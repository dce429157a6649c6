"""Trains the modern recipe with one change a line, on several seeds, and prints what each change does.

Runs, one a core, and evaluations lie in runs/ablation: the same command again goes on where it was stopped.
"""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev

from rich.console import Console

from bgan.trainer.config import TrainingConfig
from bgan.trainer.data_choice import DataChoice
from bgan.trainer.evaluation import evaluate_samples, load_reference
from bgan.trainer.files import write_json
from bgan.trainer.jobs import Job, JobRunner
from bgan.trainer.presets import preset_values
from bgan.trainer.run import Run
from bgan.trainer.sampling import sample_run

FOLDER = Path("runs/ablation")
COUNT = 10_000
COLUMNS = {
    "frechet_distance": ("Frechet distance", 1),
    "isolated_pixels": ("isolated pixels", 3),
    "components": ("components", 2),
    "coverage": ("coverage", 3),
    "least_class": ("least class", 3),
    "seconds": ("seconds", 0),
}
MODELS = {
    "cnn-dbn": {"neuron": "dbn"},
    "cnn-sbn": {"neuron": "sbn"},
    "mlp-dbn": {"neuron": "dbn", "network": "mlp"},
}
CHANGES = {
    "cnn-dbn": {
        "the recipe": {},
        "without averaging": {"average_decay": 0.0},
        "output bias 0": {"output_bias": "zero"},
        "He weights": {"initialization": "he"},
        "one critic: mlp": {"discriminator": "mlp"},
        "one critic: strided-cnn": {"discriminator": "strided-cnn"},
        "published cnn critic beside the mlp": {"discriminator": "mlp+cnn"},
        "gan, no pairs and no penalty": {"objective": "gan"},
        "wgan-gp, 1 critic step": {"objective": "wgan-gp", "critic_steps": 1, "penalty_weight": 10.0},
        "gamma 0.5": {"penalty_weight": 0.5},
        "gamma 8": {"penalty_weight": 8.0},
        "learning rate 1e-3": {"learning_rate": 1e-3},
        "learning rate 4e-3, critics 2e-3": {"learning_rate": 4e-3, "discriminator_learning_rate": 2e-3},
        "constant learning rate": {"learning_rate_decay": "none"},
        "trained as dbn": {"training_neuron": "dbn", "estimator": "sigmoid-adjusted"},
        "batch 128, half the steps": {"batch_size": 128},
        "Adam beta1 0.5": {"adam_beta1": 0.5},
        "slope annealing, 1.1 an epoch": {"slope_rate": 1.1},
        "the published cnn generator": {"network": "cnn"},
    },
    "cnn-sbn": {
        "the recipe (reinmax)": {},
        "sigmoid-adjusted": {"estimator": "sigmoid-adjusted"},
        "identity": {"estimator": "identity"},
    },
    "mlp-dbn": {
        "the recipe": {},
        "one critic: mlp": {"discriminator": "mlp"},
        "trained as dbn": {"training_neuron": "dbn", "estimator": "sigmoid-adjusted"},
        "one critic: mlp, trained as dbn": {
            "discriminator": "mlp",
            "training_neuron": "dbn",
            "estimator": "sigmoid-adjusted",
        },
    },
}


def main() -> None:
    """Train, measure, and print a Markdown table for each model."""
    parser = argparse.ArgumentParser(prog="make ablation", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    jobs = {
        (model, change, seed): _job(model, change, seed, options.epochs)
        for model in options.models
        for seed in range(options.seeds)
        for change in CHANGES[model]
    }
    console = Console(stderr=True)
    waiting = [job for job in jobs.values() if not Run(job.folder).report_file.exists()]
    failed = JobRunner(os.cpu_count() or 1, console).run(waiting)
    reference = load_reference(DataChoice(dataset="mnist"))
    measured = {key: _measured(job, reference) for key, job in jobs.items() if job.name not in failed}
    print(_circumstances(options))
    for model in options.models:
        _print_table(model, measured)
    for name, reason in failed.items():
        print(f"{name}: {reason}")


def _job(model, change, seed, epochs):
    settings = {**MODELS[model], **CHANGES[model][change]}
    preset = preset_values("modern", neuron=settings["neuron"])
    config = TrainingConfig(**{**preset, **settings, "dataset": "mnist", "seed": seed, "epochs": epochs})
    number = list(CHANGES[model]).index(change)
    name = f"{model}-{number:02}-seed{seed}-epochs{epochs}"
    return Job(config, FOLDER / "runs" / name, FOLDER / "logs" / f"{name}.log")


def _measured(job, reference):
    """The columns of a run, from its file where it was measured before."""
    path = FOLDER / "evaluations" / f"{job.name}.json"
    if not path.exists():
        evaluation = evaluate_samples(sample_run(Run(job.folder), COUNT), reference)
        write_json(path, evaluation.to_dict())
    found = json.loads(path.read_text())
    seconds = json.loads(Run(job.folder).report_file.read_text())["seconds"]
    return {**found["metrics"], "least_class": min(found["class_histogram"]), "seconds": seconds}


def _circumstances(options):
    stamp = datetime.now(UTC).date().isoformat()
    return (
        f"{stamp}, {os.cpu_count()} cores ({platform.machine()}), one run a core with one thread, "
        f"{options.epochs} epochs, {options.seeds} seeds: mean ± standard deviation."
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
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if values else "-"
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
