"""A sweep by Optuna over settings, which gives up early on runs that are worse than most: by a callback.

pip install 'bgan[train]' optuna
python docs/examples/sweep.py --trials 20 --epochs 8
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from bgan.trainer import BinaryDataset, Callback, StopTraining, configure, train


class Pruning(Callback):
    """Tells a trial of each evaluation, and stops the training where the trial is to be given up."""

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial, self.metric = trial, metric
        self.value, self.is_pruned = float("nan"), False

    def on_evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Tell the trial, whose steps are those of the training."""
        self.value = figures[self.metric]
        self.trial.report(self.value, step)
        if self.trial.should_prune():
            self.is_pruned = True
            raise StopTraining


def sweep(
    folder: Path,
    *,
    trials: int,
    images: BinaryDataset | None = None,
    metric: str = "frechet_distance",
    pruner: optuna.pruners.BasePruner | None = None,
    **settings: Any,
) -> optuna.Study:
    """A study that minimizes a metric of `bgan evaluate`; its runs are in a new folder, one for each trial.

    `settings` are those of all runs; `images` are what they are trained on, None: what the settings name.
    """

    def objective(trial: optuna.Trial) -> float:
        own = {
            "learning_rate": trial.suggest_float("learning_rate", 3e-4, 3e-2, log=True),
            "ema_decay": trial.suggest_categorical("ema_decay", [0.0, 0.99]),
        }
        pruning = Pruning(trial, metric)
        run = folder / f"trial-{trial.number:03d}"
        train(configure(**{"evaluate_every": 1, **settings, **own}), images, folder=run, callbacks=[pruning])
        if pruning.is_pruned:
            raise optuna.TrialPruned
        return pruning.value

    pruner = pruner or optuna.pruners.MedianPruner(n_startup_trials=4)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=trials)
    return study


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    # Settings are chosen by validation images; the test images are for what is chosen in the end.
    chosen = {"dataset": "digits", "network": "mlp", "validation_images": 256, "epochs": arguments.epochs}
    found = sweep(arguments.folder, trials=arguments.trials, **chosen)
    pruned = found.get_trials(states=[optuna.trial.TrialState.PRUNED])
    print(f"{len(pruned)} of {len(found.trials)} were given up")
    print(f"best: {found.best_value:.3f} {found.best_params}")
