"""The two-sample test: how often networks that were trained to tell two sets apart do so on images left out."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...common.rng import CPU
from ..classifier import Classifier, accuracy
from .errors import Estimate

JUDGES = 4
_CHANNELS = 16
_BATCH = 128
_LEARNING_RATE = 2e-3
_PART_HELD_BACK = 8  # of a judge's training images, to choose its weights
_STEPS_AT_LEAST = 5  # of a round; else an epoch
_ROUNDS_AT_MOST = 16
_PATIENCE = 5  # rounds without a better accuracy on what is held back


def two_sample_accuracy(
    first: NDArray[np.uint8], second: NDArray[np.uint8], *, seed: int = 0, device: torch.device = CPU
) -> Estimate:
    """How often four networks tell two sets of images [N, C, H, W] apart: 0.5 if they are alike, at most 1.

    Each judge is trained on three quarters of both sets and asked of the last one, so that every image is judged
    once, by one that has not seen it (Lopez-Paz and Oquab 2017). Its training ends where the accuracy on an eighth
    that is held back stops rising, with the weights of the best round. The error is that of the mean of the four
    accuracies, or of as many guesses where that is larger. The larger set is cut to the length of the other.
    """
    count = min(len(first), len(second))
    random = np.random.default_rng(seed)
    sets = [torch.from_numpy(images)[random.permutation(len(images))[:count]] for images in (first, second)]
    fold = torch.from_numpy(random.permutation(np.arange(count) % JUDGES))
    rates = []
    for judge in range(JUDGES):
        training, asked = (_labelled([images[mask] for images in sets]) for mask in (fold != judge, fold == judge))
        with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=device.type):
            torch.manual_seed(JUDGES * seed + judge)
            rates.append(_accuracy(_trained_judge(*training, device), *asked))
    mean = float(np.mean(rates))
    spread = float(np.std(rates, ddof=1)) / math.sqrt(JUDGES)
    return Estimate(mean, max(spread, math.sqrt(mean * (1 - mean) / (2 * count))))


def _labelled(sets: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat(sets), torch.arange(2).repeat_interleave(len(sets[0]))


def _trained_judge(images: Tensor, labels: Tensor, device: torch.device) -> Classifier:
    """A judge, by Adam until it tells the held-back images no better."""
    order = torch.randperm(len(images))
    held, kept = order[: len(order) // _PART_HELD_BACK], order[len(order) // _PART_HELD_BACK :]
    judge = Classifier(tuple(images.shape[1:]), 2, channels=_CHANNELS)
    judge.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(judge.parameters(), lr=_LEARNING_RATE)
    best, best_rate, rounds_since = judge.state_dict(), -1.0, 0
    for _ in range(_ROUNDS_AT_MOST):
        for _ in range(max(_STEPS_AT_LEAST, len(kept) // _BATCH)):
            rows = kept[torch.randint(len(kept), (_BATCH,))]
            loss = F.cross_entropy(judge(images[rows].to(device).float()), labels[rows].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        rate = _accuracy(judge, images[held], labels[held])
        rounds_since = 0 if rate > best_rate else rounds_since + 1
        if rate > best_rate:
            best, best_rate = copy.deepcopy(judge.state_dict()), rate
        if rounds_since == _PATIENCE:
            break
    judge.load_state_dict(best)
    return judge


def _accuracy(judge: Classifier, images: Tensor, labels: Tensor) -> float:
    judge.eval()
    rate = accuracy(judge, images.numpy(), labels.numpy())
    judge.train()
    return rate
