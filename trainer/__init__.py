"""The trainer: data, binary neurons, networks, objectives, training, and export to ONNX. Needs torch.

What it exports is what its commands use. Each name is imported when it is first asked for, so that
`import bgan.trainer` loads no torch. docs/python.md shows how the names go together.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.exploring import ExploredPage as ExploredPage
    from .api.exploring import explore as explore
    from .api.measuring import diagnose_gradients as diagnose_gradients
    from .api.measuring import evaluate as evaluate
    from .api.measuring import export as export
    from .api.run import Run as Run
    from .api.run import find_run as find_run
    from .api.training import train as train
    from .common.errors import CallbackError as CallbackError
    from .common.errors import CheckpointError as CheckpointError
    from .common.errors import ConfigError as ConfigError
    from .common.errors import DataError as DataError
    from .common.errors import DivergenceError as DivergenceError
    from .common.errors import ExportError as ExportError
    from .common.errors import Interrupted as Interrupted
    from .common.errors import NetworkError as NetworkError
    from .common.errors import PeerLostError as PeerLostError
    from .common.errors import RunError as RunError
    from .common.errors import SamplesError as SamplesError
    from .common.errors import UserError as UserError
    from .config.estimators import EstimatorEntry as EstimatorEntry
    from .config.images import DatasetSpec as DatasetSpec
    from .config.images import ImageOptions as ImageOptions
    from .config.presets import configure as configure
    from .config.training import TrainingConfig as TrainingConfig
    from .data.catalog import choose_dataset as choose_dataset
    from .data.catalog import has_classes as has_classes
    from .data.catalog import load_dataset as load_dataset
    from .data.catalog import open_dataset as open_dataset
    from .data.catalog import resolved_spec as resolved_spec
    from .data.dataset import BinaryDataset as BinaryDataset
    from .data.summary import DataSummary as DataSummary
    from .data.summary import draw_summary as draw_summary
    from .data.summary import summarize as summarize
    from .evaluation.classifier import TRAINING as TRAINING
    from .evaluation.evaluate import Evaluation as Evaluation
    from .evaluation.evaluate import no_difference as no_difference
    from .evaluation.generator import TrainedGenerator as TrainedGenerator
    from .evaluation.generator import open_generator as open_generator
    from .evaluation.metrics.table import Metric as Metric
    from .evaluation.metrics.table import MetricInputs as MetricInputs
    from .evaluation.metrics.table import Need as Need
    from .evaluation.metrics.table import all_metrics as all_metrics
    from .evaluation.reference import Reference as Reference
    from .evaluation.reference import load_reference as load_reference
    from .evaluation.samples import Samples as Samples
    from .evaluation.samples import load_samples as load_samples
    from .exporting.exporter import ExportResult as ExportResult
    from .networks.gated_parts import GatedParts as GatedParts
    from .networks.gated_parts import GatedPass as GatedPass
    from .networks.neurons import BinaryNeurons as BinaryNeurons
    from .reports.card import TrainedModel as TrainedModel
    from .reports.card import card_text as card_text
    from .reports.card import open_trained_model as open_trained_model
    from .reports.diagnosis.diagnose import Diagnosis as Diagnosis
    from .reports.diagnosis.estimates import EstimatorDiagnosis as EstimatorDiagnosis
    from .reports.diagnosis.estimates import GradientError as GradientError
    from .reports.diagnosis.figure import diagnosis_figure as diagnosis_figure
    from .reports.figures import grid_figure as grid_figure
    from .reports.hub import HubRepository as HubRepository
    from .reports.least_certain import draw_least_certain as draw_least_certain
    from .reports.reproduction.experiments import COMPARED_PRESETS as COMPARED_PRESETS
    from .reports.reproduction.experiments import check_experiments as check_experiments
    from .reports.reproduction.experiments import chosen as chosen
    from .reports.reproduction.reproduce import PLANS as PLANS
    from .reports.reproduction.reproduce import Reproduction as Reproduction
    from .training.callbacks import Callback as Callback
    from .training.callbacks import StopTraining as StopTraining
    from .training.distributed import ALONE as ALONE
    from .training.distributed import World as World
    from .training.distributed import joined as joined
    from .training.estimators.base import Estimate as Estimate
    from .training.estimators.base import Estimator as Estimator
    from .training.estimators.base import LogitEstimator as LogitEstimator
    from .training.estimators.standalone import GradientEstimator as GradientEstimator
    from .training.estimators.standalone import gradient_estimator as gradient_estimator
    from .training.launch import launch as launch
    from .training.loop import planned_sizes as planned_sizes
    from .training.objectives import Objective as Objective
    from .training.refining import refined_settings as refined_settings
    from .training.run import CONFIG_FILE as CONFIG_FILE
    from .training.trackers.build import build_trackers as build_trackers
    from .training.trackers.mlflow import MLflow as MLflow
    from .training.trackers.tensorboard import TensorBoard as TensorBoard
    from .training.trackers.trackio import Trackio as Trackio
    from .training.trackers.wandb import WandB as WandB
    from .training.trainer import resolve_device as resolve_device

_EXPORTS: dict[str, tuple[str, ...]] = {
    "api.exploring": ("ExploredPage", "explore"),
    "api.measuring": ("diagnose_gradients", "evaluate", "export"),
    "api.run": ("Run", "find_run"),
    "api.training": ("train",),
    "common.errors": (
        "CallbackError",
        "CheckpointError",
        "ConfigError",
        "DataError",
        "DivergenceError",
        "ExportError",
        "Interrupted",
        "NetworkError",
        "PeerLostError",
        "RunError",
        "SamplesError",
        "UserError",
    ),
    "config.estimators": ("EstimatorEntry",),
    "config.images": ("DatasetSpec", "ImageOptions"),
    "config.presets": ("configure",),
    "config.training": ("TrainingConfig",),
    "data.catalog": ("choose_dataset", "has_classes", "load_dataset", "open_dataset", "resolved_spec"),
    "data.dataset": ("BinaryDataset",),
    "data.summary": ("DataSummary", "draw_summary", "summarize"),
    "evaluation.classifier": ("TRAINING",),
    "evaluation.evaluate": ("Evaluation", "no_difference"),
    "evaluation.generator": ("TrainedGenerator", "open_generator"),
    "evaluation.metrics.table": ("Metric", "MetricInputs", "Need", "all_metrics"),
    "evaluation.reference": ("Reference", "load_reference"),
    "evaluation.samples": ("Samples", "load_samples"),
    "exporting.exporter": ("ExportResult",),
    "networks.gated_parts": ("GatedParts", "GatedPass"),
    "networks.neurons": ("BinaryNeurons",),
    "reports.card": ("TrainedModel", "card_text", "open_trained_model"),
    "reports.diagnosis.diagnose": ("Diagnosis",),
    "reports.diagnosis.estimates": ("EstimatorDiagnosis", "GradientError"),
    "reports.diagnosis.figure": ("diagnosis_figure",),
    "reports.figures": ("grid_figure",),
    "reports.hub": ("HubRepository",),
    "reports.least_certain": ("draw_least_certain",),
    "reports.reproduction.experiments": ("COMPARED_PRESETS", "check_experiments", "chosen"),
    "reports.reproduction.reproduce": ("PLANS", "Reproduction"),
    "training.callbacks": ("Callback", "StopTraining"),
    "training.distributed": ("ALONE", "World", "joined"),
    "training.estimators.base": ("Estimate", "Estimator", "LogitEstimator"),
    "training.estimators.standalone": ("GradientEstimator", "gradient_estimator"),
    "training.launch": ("launch",),
    "training.loop": ("planned_sizes",),
    "training.objectives": ("Objective",),
    "training.refining": ("refined_settings",),
    "training.run": ("CONFIG_FILE",),
    "training.trackers.build": ("build_trackers",),
    "training.trackers.mlflow": ("MLflow",),
    "training.trackers.tensorboard": ("TensorBoard",),
    "training.trackers.trackio": ("Trackio",),
    "training.trackers.wandb": ("WandB",),
    "training.trainer": ("resolve_device",),
}
"""The names by the module that has them; those above, which type checkers see, are the same."""
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted(_MODULES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
