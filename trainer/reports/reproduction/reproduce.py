"""Reproducing the paper: train what is planned, measure it, and report. Each part is skipped where it is done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ...common.console import say
from ...common.errors import RunError
from ...common.files import write_json
from ...config.dataset import DatasetSpec
from ...config.training import TrainingConfig
from ...evaluation.classifier import data_digest
from ...evaluation.evaluate import Evaluation, evaluate_samples, measure_floor
from ...evaluation.generator import TrainedGenerator
from ...evaluation.reference import Reference, load_reference
from ...evaluation.samples import load_samples
from ...training.run import Run
from .experiments import ExperimentModel, run_name
from .jobs import Job, JobRunner
from .report import write_report
from .results import ExperimentPlan, Outcome, Results, binarizations, models_of

PLAN_FILE = "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproductionPlan:
    """What a reproduction consists of."""

    dataset: str
    count: int
    """Samples to measure of each model."""
    experiments: dict[str, ExperimentPlan]


class Reproduction:
    """One reproduction, in a folder of its own: runs/, logs/, evaluations/, figures/ and the report."""

    def __init__(self, folder: Path, plan: ReproductionPlan, *, data_dir: str | None, console: Console) -> None:
        self._folder = folder
        self._data_dir = data_dir
        self._console = console
        self._plan = _merged(folder, plan)
        write_json(folder / PLAN_FILE, asdict(self._plan))

    def train(self, jobs: int) -> None:
        """Train what is not trained yet. Raises Interrupted after a signal, and RunError if any failed."""
        waiting = [job for job in self._jobs() if not _is_trained(Run(job.folder), job.config)]
        failed = JobRunner(jobs, self._console).run(waiting) if waiting else {}
        if failed:
            name, reason = next(iter(failed.items()))
            others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise RunError(f"{name} failed: {reason}{others}; the logs are in {self._folder / 'logs'}")

    def report(self, published_samples: Path | None) -> Path:
        """Measure what is not measured yet, and write the report; its Markdown file is returned."""
        reference = load_reference(
            DatasetSpec(dataset=self._plan.dataset, data_dir=self._data_dir), report=self._say
        )
        published = None
        if published_samples is not None:
            published = self._published(published_samples, reference)
        outcomes = self._outcomes(reference)
        if not outcomes:
            raise RunError(f"nothing in {self._folder} is trained yet; there is nothing to report")
        results = Results(
            dataset=self._plan.dataset,
            count=self._plan.count,
            plans=self._plan.experiments,
            outcomes=outcomes,
            floor=measure_floor(reference, self._plan.count, report=self._say),
            published=published,
        )
        return write_report(results, self._folder, reference.classifier_accuracy)

    def _published(self, path: Path, reference: Reference) -> dict[str, float]:
        """The metrics of as many samples of the published code as of each model."""
        samples = load_samples(path, reference.test.shape[1:]).first(self._plan.count)
        asked = {"samples": data_digest(samples.images), "asked": self._plan.count}
        file = self._folder / "evaluations" / f"samples-{path.stem}.json"
        found = self._measured(file, asked, lambda: evaluate_samples(samples, reference, report=self._say))
        metrics: dict[str, float] = found["metrics"]
        return metrics

    def _outcomes(self, reference: Reference) -> list[Outcome]:
        """All that is trained, measured."""
        outcomes: dict[tuple[str, str | None], Outcome] = {}
        for experiment, model in models_of(self._plan.experiments):
            for config in self._configs(experiment, model):
                run = Run(self._folder / "runs" / run_name(config))
                if not _is_trained(run, config):
                    continue
                for binarization in binarizations(model):
                    if (run.name, binarization) not in outcomes:
                        outcome = self._outcome(run, config, model, binarization, reference)
                        outcomes[run.name, binarization] = outcome
        return list(outcomes.values())

    def _outcome(
        self,
        run: Run,
        config: TrainingConfig,
        model: ExperimentModel,
        binarization: str | None,
        reference: Reference,
    ) -> Outcome:
        training = json.loads(run.report_file.read_text())
        suffix = f"-{binarization}" if binarization else ""
        path = self._folder / "evaluations" / f"{run.name}{suffix}.json"
        asked = {"step": training["steps"], "asked": self._plan.count}

        def measure() -> Evaluation:
            samples = TrainedGenerator.from_run(run).sample(self._plan.count, binarization=binarization)
            return evaluate_samples(samples, reference, report=lambda text: self._say(f"{run.name}: {text}"))

        found = self._measured(path, asked, measure)
        assert config.preset is not None
        return Outcome(
            run=run.name,
            preset=config.preset,
            model=model,
            epochs=config.optimization.epochs,
            seed=config.run.seed,
            binarization=binarization,
            metrics=found["metrics"],
            preactivation_histogram=found["preactivation_histogram"],
            steps=training["steps"],
            seconds=training["seconds"],
        )

    def _measured(self, path: Path, asked: dict[str, Any], measure: Callable[[], Evaluation]) -> dict[str, Any]:
        """An evaluation as JSON, from its file where it was made before of the same."""
        try:
            found: dict[str, Any] = json.loads(path.read_text())
            if asked.items() <= found.items():
                return found
        except (OSError, ValueError):
            pass
        found = {**measure().to_dict(), **asked}
        write_json(path, found)
        return found

    def _configs(self, experiment: str, model: ExperimentModel) -> list[TrainingConfig]:
        plan = self._plan.experiments[experiment]
        return [
            dataclasses.replace(
                model.config(
                    preset=preset,
                    epochs=plan.epochs,
                    seed=seed,
                    dataset=self._plan.dataset,
                    data_dir=self._data_dir,
                ),
                **plan.overrides,
            )
            for preset in plan.presets
            for seed in range(plan.seeds)
        ]

    def _jobs(self) -> list[Job]:
        jobs: dict[str, Job] = {}
        for experiment, model in models_of(self._plan.experiments):
            for config in self._configs(experiment, model):
                name = run_name(config)
                jobs[name] = Job(config, self._folder / "runs" / name, self._folder / "logs" / f"{name}.log")
        return list(jobs.values())

    def _say(self, text: str) -> None:
        say(self._console, text)


def _is_trained(run: Run, config: TrainingConfig) -> bool:
    """Whether the run has done all epochs of its settings."""
    try:
        done: int = json.loads(run.report_file.read_text())["epochs"]
    except (OSError, ValueError, KeyError):
        return False
    return done >= config.optimization.epochs


def _merged(folder: Path, plan: ReproductionPlan) -> ReproductionPlan:
    """The plan, with the experiments that the folder was given before. Raises RunError on another data set's."""
    try:
        before = json.loads((folder / PLAN_FILE).read_text())
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
    experiments = {
        name: ExperimentPlan(**{**settings, "presets": tuple(settings["presets"])})
        for name, settings in before["experiments"].items()
    }
    merged = {**experiments, **plan.experiments}
    return dataclasses.replace(plan, experiments={name: merged[name] for name in sorted(merged)})
