"""A classifier with conditional computation: for each image, gates decide which parts of a layer run.

python docs/examples/gated_classifier.py
python docs/examples/gated_classifier.py --dataset mnist --epochs 3

A dense net, and gated ones of the same width by the rate at which their parts are to run: the accuracy on test
images, the share of the parts that ran, and microseconds an image in onnxruntime, of one thread's time.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bgan.trainer import GatedParts, GatedPass, load_dataset

RATES = (1.0, 0.5, 0.25)
TRUNK, PARTS, WIDTH = 256, 4, 1024  # hidden units that always run, parts behind gates, hidden units of a part
PIXELS, CLASSES = 784, 10
BATCH = 512  # of what is timed


def layers(width: int) -> nn.Sequential:
    """Images [B, 784] to logits [B, 10]."""
    return nn.Sequential(nn.Linear(PIXELS, width), nn.ReLU(), nn.Linear(width, CLASSES))


class GatedClassifier(nn.Module):
    """The hidden units in groups: a trunk, and parts behind gates."""

    def __init__(self, rate: float, width: int) -> None:
        super().__init__()
        self.trunk = layers(TRUNK)
        self.gated = GatedParts([layers(width) for _ in range(PARTS)], nn.Linear(PIXELS, PARTS), rate=rate)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, 10] of images [B, 784]."""
        return self.passed(images).outputs

    def passed(self, images: Tensor) -> GatedPass:
        """The same, with the gates."""
        return self.gated(images, self.trunk(images))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The cross entropy, and what holds the gates at their rate."""
        passed = self.passed(images)
        return F.cross_entropy(passed.outputs, labels) + 10 * self.gated.penalty(passed.logits)


class DenseClassifier(nn.Module):
    """All units in one layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = layers(TRUNK + PARTS * width)

    def forward(self, images: Tensor) -> Tensor:
        """As of a gated one."""
        return self.layers(images)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The cross entropy."""
        return F.cross_entropy(self(images), labels)


def images_and_labels(dataset: str, split: str) -> tuple[Tensor, Tensor]:
    """Binary images [N, 784] and their classes [N]."""
    found = load_dataset(dataset, split=split)
    return found.images[torch.arange(len(found))].float().flatten(1), found.labels


def train(model: DenseClassifier | GatedClassifier, images: Tensor, labels: Tensor, epochs: int) -> None:
    """By Adam, in batches of 64."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            model.loss(images[batch], labels[batch]).backward()
            optimizer.step()
    model.eval()


def exported(model: nn.Module, path: Path) -> onnxruntime.InferenceSession:
    """The model as a file, for batches of any size, and a session of one thread that runs it."""
    with warnings.catch_warnings(action="ignore"):  # torch's, about itself
        torch.onnx.export(
            model,
            (torch.zeros(2, PIXELS),),
            path,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def microseconds(runs: Mapping[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Median microseconds of CPU an image; the runs take turns, so that all of them meet the same machine."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            spent[name].append((time.process_time() - start) / BATCH * 1e6)
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def compare(
    folder: Path,
    dataset: str = "digits",
    epochs: int = 10,
    *,
    width: int = WIDTH,
    progress: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """By a net's name: its accuracy on test images, the share of parts that ran, and microseconds an image."""
    images, labels = images_and_labels(dataset, "train")
    test_images, test_labels = images_and_labels(dataset, "test")
    timed = test_images[torch.arange(BATCH) % len(test_images)].numpy()
    figures, runs = {}, {}
    for rate in (None, *RATES):
        name = "dense" if rate is None else f"rate {rate:g}"
        torch.manual_seed(0)
        model = DenseClassifier(width) if rate is None else GatedClassifier(rate, width)
        progress(f"{name}: trains on {len(images)} images for {epochs} epochs, and is exported")
        train(model, images, labels, epochs)
        session = exported(model, folder / f"{name.replace(' ', '-')}.onnx")
        (logits,) = session.run(None, {"images": test_images.numpy()})
        accuracy = np.mean(logits.argmax(axis=1) == test_labels.numpy())
        share = 1.0 if rate is None else float(model.passed(test_images).shares.mean())
        figures[name] = {"accuracy": float(accuracy), "share": share}
        runs[name] = lambda session=session: session.run(["logits"], {"images": timed})
    for name, found in microseconds(runs).items():
        figures[name]["microseconds"] = found
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", choices=["digits", "mnist"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("runs/gated-classifier"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, row in compare(arguments.folder, arguments.dataset, arguments.epochs).items():
        print(
            f"{name:9}  accuracy {row['accuracy']:.1%}  parts that ran {row['share']:4.0%}  "
            f"{row['microseconds']:5.1f} us an image"
        )
