"""The trackers that a training can tell of itself, by name."""

TRACKERS = {
    "tensorboard": "TensorBoard",
    "wandb": "WandB",
    "mlflow": "MLflow",
    "trackio": "Trackio",
}
"""The class of each, in the module of that name in training/trackers/; each but the first is an extra of bgan."""
NO_TRACKER = "none"
