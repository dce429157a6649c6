"""Reproducing the paper: train what is planned, measure it, and report. Each part is skipped where it is done."""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from ...common.console import say
from ...common.errors import RunError
from ...common.files import write_json
from ...config.images import DatasetSpec
from ...config.training import TrainingConfig
from ...evaluation.classifier import data_digest
from ...evaluation.evaluate import evaluate_samples, measure_floor
from ...evaluation.generator import TrainedGenerator
from ...evaluation.reference import Reference, load_reference
from ...evaluation.samples import Samples, load_samples
from ...training.run import Run
from .experiments import COMPARED_PRESETS, EXPERIMENTS, PAPER_EPOCHS, ExperimentModel, ExperimentPlan, run_name
from .jobs import Job, run_jobs
from .report import circumstances, write_report
from .results import Outcome, Results

PLAN_FILE = "plan.json"


@dataclass(frozen=True, slots=True)
class ReproductionPlan:
    """What a reproduction consists of: so many samples of each model, and trainings at a time."""

    dataset: str
    count: int
    experiments: dict[str, ExperimentPlan]
    folder: Path
    jobs: int | None
    """None: one for each core."""


_FULL = ExperimentPlan(presets=COMPARED_PRESETS, epochs=PAPER_EPOCHS, seeds=1, overrides={})
_QUICK = dataclasses.replace(_FULL, epochs=5, overrides={"discriminator_bursts": False})
PLANS = {
    name: ReproductionPlan(dataset, count, dict.fromkeys(EXPERIMENTS, each), Path(folder), jobs)
    for name, dataset, count, each, folder, jobs in (
        ("full", "auto", 10_000, _FULL, "reproduction", 1),
        ("quick", "digits", 1000, _QUICK, "reproduction-quick", os.cpu_count() or 1),
    )
}
"""The paper's experiments, and all of them in minutes."""


class Reproduction:
    """One reproduction, in a folder of its own: runs/, logs/, evaluations/, figures/ and the report."""

    def __init__(self, plan: ReproductionPlan, *, data_dir: str | None, console: Console) -> None:
        self._plan, self._folder = _merged(plan), plan.folder
        self._data_dir = data_dir
        self._say = partial(say, console)
        self._console = console
        experiments = {name: asdict(each) for name, each in self._plan.experiments.items()}
        content = {"dataset": plan.dataset, "count": plan.count, "experiments": experiments}
        write_json(self._folder / PLAN_FILE, content)

    def train(self, *, ray: str | None = None) -> None:
        """Train what is not trained yet, on a Ray cluster if its address is given.

        Raises Interrupted after a signal, and RunError if any failed.
        """
        logs = self._folder / "logs"
        jobs = [
            Job(config, run.folder, logs / f"{run.name}.log")
            for _, _, config, run in self._planned()
            if not _is_trained(run, config)
        ]
        failed = run_jobs(jobs, self._plan.jobs, self._console, ray=ray) if jobs else {}
        if failed:
            name, reason = next(iter(failed.items()))
            others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise RunError(f"{name} failed: {reason}{others}; the logs are in {logs}")

    def report(self, published_samples: Path | None) -> Path:
        """Measure what is not measured yet, and write the report; its Markdown file is returned."""
        reference = load_reference(
            DatasetSpec(dataset=self._plan.dataset, data_dir=self._data_dir), report=self._say
        )
        published = None
        if published_samples is not None:
            samples = load_samples(published_samples, reference.test.shape[1:]).first(self._plan.count)
            source = {"samples": data_digest(samples.images)}
            name = f"samples-{published_samples.stem}"
            published = self._measured(name, source, lambda: samples, reference)["metrics"]
        outcomes = self._outcomes(reference)
        if not outcomes:
            raise RunError(f"nothing in {self._folder} is trained yet; there is nothing to report")
        results = Results(
            made=circumstances(),
            dataset=self._plan.dataset,
            count=self._plan.count,
            classifier_accuracy=reference.classifier_accuracy,
            plans=self._plan.experiments,
            floor=measure_floor(reference, self._plan.count, report=self._say).values,
            published_samples=published,
            outcomes=outcomes,
        )
        return write_report(results, self._folder)

    def _outcomes(self, reference: Reference) -> list[Outcome]:
        outcomes = []
        for preset, model, config, run in self._planned():
            if not _is_trained(run, config):
                continue
            training = json.loads(run.report_file.read_bytes())
            for way in model.binarizations:
                name, source = f"{run.name}-{way}" if way else run.name, {"step": training["steps"]}
                found = self._measured(name, source, partial(self._samples, run, way), reference)
                outcomes.append(
                    Outcome(
                        run=run.name,
                        preset=preset,
                        model=model,
                        epochs=config.optimization.epochs,
                        seed=config.run.seed,
                        binarization=way,
                        metrics=found["metrics"],
                        errors=found.get("errors", {}),
                        steps=training["steps"],
                        seconds=training["seconds"],
                        preactivation_histogram=found["preactivation_histogram"],
                    )
                )
        return outcomes

    def _samples(self, run: Run, binarization: str | None) -> Samples:
        return TrainedGenerator.from_run(run).sample(self._plan.count, binarization=binarization)

    def _measured(
        self, name: str, source: dict[str, Any], draw: Callable[[], Samples], reference: Reference
    ) -> dict[str, Any]:
        """An evaluation as JSON, from its file if as many samples of the same source were measured before."""
        path = self._folder / "evaluations" / f"{name}.json"
        asked = {**source, "asked": self._plan.count}
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            if asked.items() <= found.items():
                return found
        except (OSError, ValueError):
            pass
        evaluation = evaluate_samples(draw(), reference, report=lambda text: self._say(f"{name}: {text}"))
        found = {**evaluation.to_dict(), **asked}
        write_json(path, found)
        return found

    def _planned(self) -> Iterable[tuple[str, ExperimentModel, TrainingConfig, Run]]:
        """The preset, model, settings and run of all that is planned; experiments share runs."""
        runs = {}
        for name, plan in self._plan.experiments.items():
            settings = {"epochs": plan.epochs, "dataset": self._plan.dataset, "data_dir": self._data_dir}
            models = EXPERIMENTS[name].models
            for model, preset, seed in itertools.product(models, plan.presets, range(plan.seeds)):
                config = model.config(preset, **{"seed": seed, **settings, **plan.overrides})
                run = Run(self._folder / "runs" / run_name(config))
                runs[run.name] = (preset, model, config, run)
        return runs.values()


def _is_trained(run: Run, config: TrainingConfig) -> bool:
    try:
        done: int = json.loads(run.report_file.read_bytes())["epochs"]
    except (OSError, ValueError, KeyError):
        return False
    return done >= config.optimization.epochs


def _merged(plan: ReproductionPlan) -> ReproductionPlan:
    """The plan, with the experiments that its folder was given before. Raises RunError on another data set's."""
    folder = plan.folder
    try:
        before = json.loads((folder / PLAN_FILE).read_bytes())
    except FileNotFoundError:
        if folder.exists() and any(path.name not in {"runs", "logs"} for path in folder.iterdir()):
            raise RunError(
                f"{folder} is not the folder of a reproduction, and not empty; choose another --output"
            ) from None
        return plan
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / PLAN_FILE} cannot be read ({error})") from error
    if before["dataset"] != plan.dataset:
        raise RunError(f"{folder} reproduces on {before['dataset']}, not {plan.dataset}; choose another --output")
    experiments = {name: ExperimentPlan(**each) for name, each in before["experiments"].items()}
    return dataclasses.replace(plan, experiments=dict(sorted({**experiments, **plan.experiments}.items())))
