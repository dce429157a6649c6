"""MLflow: https://mlflow.org. MLFLOW_TRACKING_URI says where to; without it a database in the current folder."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from ..run import Run
from .tracker import PROJECT, Tracker, exit_status, package, settings_of

_PARAMS_AT_ONCE = 100  # of a call
_LONGEST = 6000  # characters of a value


class MLflow(Tracker):
    """Logs a run to the experiment of MLFLOW_EXPERIMENT_NAME, or "bgan"; MLflow has no histograms.

    Raises UserError where the package `mlflow`, or what its database needs, is not installed.
    """

    name = "mlflow"

    def __init__(self) -> None:
        for name in ("sqlalchemy", "alembic"):  # of its database, which mlflow-skinny does not ask for
            package(name, self.name)
        self._mlflow = package("mlflow", self.name)
        self._entities = package("mlflow.entities", self.name)

    def open(self, run: Run, known_id: str | None) -> str:
        """Begin with the settings as parameters, or go on with the run of that id."""
        self._client = self._mlflow.MlflowClient()
        if known_id is not None:
            self._client.update_run(known_id, status="RUNNING")
            self._id = known_id
            return known_id
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(experiment)
        experiment_id = self._client.create_experiment(experiment) if known is None else known.experiment_id
        self._id = str(self._client.create_run(experiment_id, run_name=run.name).info.run_id)
        params = [self._entities.Param(name, str(value)[:_LONGEST]) for name, value in settings_of(run).items()]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[first : first + _PARAMS_AT_ONCE])
        return self._id

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log metrics."""
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def show(self, step: int, picture: Path) -> None:
        """Log an artifact."""
        self._client.log_artifact(self._id, str(picture), "samples")

    def on_end(self, run: Run) -> None:
        """Say how it ended."""
        if (own_id := getattr(self, "_id", None)) is not None:
            self._client.set_terminated(own_id, exit_status())
