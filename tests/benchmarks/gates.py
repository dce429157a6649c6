"""Trains gated generators and dense ones on one budget, and measures their images and the cost of their files.

Runs, exports and evaluations lie in runs/gates: the same command resumes them. Files are timed anew each time.
"""

import argparse
import csv
import json
import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median

import numpy as np
import onnxruntime
from rich.console import Console

from bgan.trainer.common.files import write_json
from bgan.trainer.config.images import DatasetSpec
from bgan.trainer.config.presets import configure
from bgan.trainer.evaluation.generator import TrainedGenerator
from bgan.trainer.evaluation.metrics.artifacts import isolated_pixels
from bgan.trainer.evaluation.metrics.features import Features, frechet_distance
from bgan.trainer.evaluation.reference import Reference, load_reference
from bgan.trainer.exporting.exporter import export_run
from bgan.trainer.exporting.model_file import OnnxModel
from bgan.trainer.reports.reproduction.jobs import Job, run_jobs
from bgan.trainer.training.run import Run

from . import gates_figures
from .gates_lines import EPOCHS, GATES, PARTS, Line

FOLDER, TABLE = Path("runs/gates"), Path("docs/gates.csv")
SAMPLES = 10_000
METRICS = ("frechet_distance", "label_accuracy", "isolated_pixels")
ROWS, ROUNDS, CALLS = 256, 41, 4
_VERSIONS = ("bgan", "torch", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True)
class Result:
    """A line, as all its seeds have it."""

    part: str
    line: Line
    seeds: list[dict[str, float]]
    """The figures of each."""
    shares: np.ndarray
    """How often each part serves each class, [K, E], of the first seed; without gates [K, 0]."""

    def mean(self, name: str) -> float:
        """The mean of a figure over the seeds."""
        return fmean(seed[name] for seed in self.seeds)

    def deviation(self, name: str) -> float:
        """Its standard deviation; NaN with one seed."""
        return float(np.std([seed[name] for seed in self.seeds], ddof=1)) if len(self.seeds) > 1 else float("nan")


def main() -> None:
    """Train, measure, and write the table and the figures."""
    parser = argparse.ArgumentParser(prog="make gates", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--lines", nargs="+", help="lines by their names, as dense-w0.25 (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, help="runs at once (default: one a core)")
    parser.add_argument("--trained", action="store_true", help="train nothing: measure the runs that are there")
    options = parser.parse_args()
    jobs = {
        (part, line, seed): _job(part, line, seed)
        for seed in range(options.seeds)
        for part in options.parts
        for line in PARTS[part]
        if options.lines is None or line.name in options.lines
    }
    if not options.trained:
        run_jobs([job for job in jobs.values() if not _is_trained(job)], options.jobs, Console(stderr=True))
    results = _results({key: job for key, job in jobs.items() if _is_trained(job)})
    print(_circumstances())
    _write_table(results)
    _print_tables(results)
    gates_figures.draw(results, {key: job.folder for key, job in jobs.items() if _is_trained(job)})


def _job(part: str, line: Line, seed: int) -> Job:
    own = {"network": "mlp", "conditional": True, "dataset": _dataset(part), "seed": seed, "epochs": EPOCHS[part]}
    name = f"{part}-{line.name}-seed{seed}"
    config = configure("modern", **own, **line.settings())
    return Job(config, FOLDER / "runs" / name, FOLDER / "logs" / f"{name}.log")


def _dataset(part: str) -> str:
    return "digits" if part == "estimators" else part


def _is_trained(job: Job) -> bool:
    return Run(job.folder).report_file.exists()


def _results(jobs: dict[tuple[str, Line, int], Job]) -> list[Result]:
    """All lines of which there are runs, in the order of their parts."""
    models = {key: _exported(job) for key, job in jobs.items() if key[0] != "estimators"}
    seconds = _timed(models)
    results = []
    for part, line in dict.fromkeys((part, line) for part, line, _ in jobs):
        keys = [key for key in jobs if key[:2] == (part, line)]
        seeds = [
            {
                **_measured(jobs[key], _dataset(part)),
                "microseconds": seconds.get(key, np.nan),
            }
            for key in keys
        ]
        results.append(Result(part, line, seeds, _shares(models.get(keys[0]))))
    return sorted(
        results, key=lambda result: (list(PARTS).index(result.part), PARTS[result.part].index(result.line))
    )


def _exported(job: Job) -> Path:
    """The file of a run; its export has proved that it runs as it was trained."""
    path = FOLDER / "models" / f"{job.name}.onnx"
    return path if path.exists() else export_run(Run(job.folder), path.parent).path


def _measured(job: Job, dataset: str) -> dict[str, float]:
    """The figures of a run, from its file where it was measured before."""
    path = FOLDER / "evaluations" / f"{job.name}.json"
    if not path.exists():
        write_json(path, _figures(TrainedGenerator.from_run(Run(job.folder)), dataset))
    report = json.loads(Run(job.folder).report_file.read_text())
    shares = np.array(report.get("gate_shares", []))
    parts = {"least": shares.min(), "mean": shares.mean(), "most": shares.max()} if len(shares) else {}
    return {
        **{name: json.loads(path.read_text())[name] for name in METRICS},
        **{f"share_{name}": float(value) for name, value in parts.items()},
        "training_ms": 1e3 * report["seconds"] / report["steps"],
    }


def _figures(generator: TrainedGenerator, dataset: str) -> dict[str, float]:
    """Means over draws, each of as many samples as real images: one of MNIST, six of digits."""
    reference, real = _reference(dataset)
    found = []
    for seed in range(min(10, SAMPLES // len(real))):
        samples = generator.sample(len(real), seed=seed)
        features, classes = reference.classifier.describe(samples.images)
        found.append(
            {
                "frechet_distance": float(frechet_distance(features, real)),
                "label_accuracy": float((classes.argmax(axis=1) == samples.labels).mean()),
                "isolated_pixels": float(isolated_pixels(samples.images).mean()),
            }
        )
    return {name: fmean(each[name] for each in found) for name in METRICS}


@cache
def _reference(dataset: str) -> tuple[Reference, Features]:
    """The classifier of a data set, and its features of 10,000 test images; of the digits' training images, as 257
    test images are too few to tell generators apart."""
    reference = load_reference(DatasetSpec(dataset=dataset))
    real = reference.training if dataset == "digits" else reference.test
    return reference, reference.classifier.describe(real[:SAMPLES])[0]


def _shares(model: Path | None) -> np.ndarray:
    if model is None:
        return np.empty((0, 0))
    manifest = OnnxModel(model).manifest
    classes = len(manifest.classes)
    return np.array(manifest.gates.class_active_shares).reshape(classes, -1)


def _timed(models: dict[tuple[str, Line, int], Path]) -> dict[tuple[str, Line, int], float]:
    """CPU microseconds an image of files in batches on one thread: the median of many turns, each of all files."""
    work = {key: _batches(path) for key, path in models.items()}
    seconds: dict[tuple[str, Line, int], list[float]] = {key: [] for key in models}
    for _ in range(ROUNDS):
        for key, batches in work.items():
            start = time.process_time()
            batches()
            seconds[key].append(time.process_time() - start)
    return {key: 1e6 * median(found[1:]) / (CALLS * ROWS) for key, found in seconds.items()}


def _batches(model: Path) -> Callable[[], None]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    manifest = OnnxModel(model).manifest
    random = np.random.default_rng(0)
    inner = manifest.inner_uniform_count

    def feed() -> dict[str, np.ndarray]:
        latents = random.standard_normal((ROWS, manifest.latent_size), np.float32)
        labels = random.integers(len(manifest.classes), size=ROWS)
        uniforms = {"inner_uniforms": random.random((ROWS, inner), np.float32)} if inner else {}
        return {"latents": latents, "labels": labels, **uniforms}

    feeds = [feed() for _ in range(CALLS)]

    def run() -> None:
        for each in feeds:
            session.run(["images"], each)

    return run


def _write_table(results: list[Result]) -> None:
    names = list(dict.fromkeys(name for result in results for name in result.seeds[0]))
    columns = [f"{name}{suffix}" for name in names for suffix in ("", "_deviation")]
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ["part", "gates_by", "gates", "width", "rate", "neuron", "estimator", "mean_units", "seeds", *columns]
        )
        for result in results:
            line = result.line
            count = None if line.rate is None else line.gates
            about = [line.kind, count, line.width, line.rate, line.neuron, line.estimator, line.mean_units]
            values = [_number(each) for name in names for each in _spread(result, name)]
            table.writerow([result.part, *about, len(result.seeds), *values])


def _spread(result: Result, name: str) -> tuple[float, float]:
    if name not in result.seeds[0]:
        return float("nan"), float("nan")
    return result.mean(name), result.deviation(name)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5g}"


def _print_tables(results: list[Result]) -> None:
    """Markdown, a table for each part."""
    titles = {
        "units": "units", "frechet_distance": "Fréchet distance", "microseconds": "µs", "label_accuracy": "class",
        "isolated_pixels": "isolated pixels", "shares": "shares of gates", "training_ms": "training, ms a step",
    }  # fmt: skip
    for part in dict.fromkeys(result.part for result in results):
        print(
            "", f"| {part} | seeds | {' | '.join(titles.values())} |", f"|---|---{'|---' * len(titles)}|", sep="\n"
        )
        for result in (result for result in results if result.part == part):
            print(f"| {result.line.title} | {len(result.seeds)} | {' | '.join(_cells(result))} |")


def _cells(result: Result) -> list[str]:
    distance, deviation = _spread(result, "frechet_distance")
    shares = [_spread(result, f"share_{name}")[0] for name in ("least", "mean", "most")]
    return [
        f"{result.line.mean_units:,.0f}",
        f"{distance:.1f}" + ("" if np.isnan(deviation) else f" ± {deviation:.1f}"),
        "" if np.isnan(result.mean("microseconds")) else f"{result.mean('microseconds'):.1f}",
        f"{result.mean('label_accuracy'):.3f}",
        f"{result.mean('isolated_pixels'):.3f}",
        "" if np.isnan(shares[0]) else "{:.2f}, {:.2f}, {:.2f}".format(*shares),
        f"{result.mean('training_ms'):.0f}",
    ]


def _circumstances() -> str:
    found = re.search(r"^model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cpu = found[1] if found else platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    return (
        f"{datetime.now(UTC).date().isoformat()}, {os.cpu_count()} cores of {cpu}, "
        f"load {os.getloadavg()[0]:.1f}; {versions}. {GATES} gates where no other number is named; "
        f"epochs: {EPOCHS}; batches of {ROWS} rows, "
        f"{ROUNDS - 1} turns."
    )


if __name__ == "__main__":
    main()
