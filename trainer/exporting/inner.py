"""Exporting generators with inner neurons: what their manifest says, and proof that routing changes no bit."""

import copy
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from bgan.v1 import model_pb2

from ..common.errors import ExportError
from ..config.training import TrainingConfig
from ..networks.build import AnyGenerator
from ..networks.gates import GatedGenerator
from ..networks.inner import InnerGenerator, inner_uniform_count
from ..training.gate_shares import gate_shares
from .model_file import NEURONS, open_session

_ROUNDING = 1e-6  # of an inner neuron's probability, at least
_CERTAIN_AT_LEAST = 0.1  # of the rows that are checked


def describe_inner(
    manifest: model_pb2.Model, config: TrainingConfig, generator: AnyGenerator, slope: float
) -> None:
    """Write into a manifest what inner neurons there are, and which share of the images each part serves."""
    manifest.inner_uniform_count = inner_uniform_count(generator)
    inner = config.inner
    if inner.hidden_neuron is not None:
        manifest.hidden_neuron = NEURONS[inner.hidden_neuron]
    if isinstance(generator, GatedGenerator):
        shares = gate_shares(generator, slope)
        overall = shares.overall(manifest.class_counts)
        manifest.gates.CopyFrom(
            model_pb2.Gates(
                count=generator.inner_count,
                rate=inner.gate_rate or 0,
                neuron=NEURONS[generator.neuron],
                mean_active_share=float(overall.mean()),
                active_shares=overall.tolist(),
                class_active_shares=shares.by_class.flatten().tolist() if generator.class_count else [],
            )
        )


def certain_rows(
    generator: AnyGenerator, latents: Tensor, labels: Tensor | None, slope: float, inner: Tensor | None
) -> NDArray[np.bool_]:
    """The rows [B] in which no inner neuron is within a rounding error of firing, or of not firing.

    Raises ExportError where they are too few to prove anything.
    """
    if not isinstance(generator, InnerGenerator):
        return np.ones(len(latents), np.bool_)
    with torch.no_grad():
        rounded = torch.sigmoid(slope * generator.inner_pass(latents, labels).logits)
        exact = torch.sigmoid(
            slope * copy.deepcopy(generator).double().inner_pass(latents.double(), labels).logits
        )
    distance = (exact - (0.5 if inner is None else inner)).abs()
    rounding = max(_ROUNDING, 2 * float((rounded - exact).abs().max()))
    certain: NDArray[np.bool_] = (distance > rounding).all(dim=1).numpy()
    if certain.mean() < _CERTAIN_AT_LEAST:
        raise ExportError(
            f"only {certain.mean():.0%} of the images checked have inner neurons that rounding cannot change; "
            "train for longer, or with a narrower --width"
        )
    return certain


def check_routing(routed: onnx.ModelProto, masked: onnx.ModelProto, inputs: dict[str, Tensor]) -> None:
    """Raise ExportError unless a graph that runs parts where gates are on gives what one gives that runs all."""
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
    names = ["images", "probabilities", "gates"]
    found = [_outputs(model, names, feeds) for model in (routed, masked)]
    for name, first, second in zip(names, *found, strict=True):
        if first.tobytes() != second.tobytes():
            raise ExportError(
                f"the routed graph gives other {name} than the masked one, in {int((first != second).sum())} "
                "values; report this, with what `bgan doctor` prints"
            )


def _outputs(
    model: onnx.ModelProto, names: Sequence[str], feeds: dict[str, NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    outputs: list[NDArray[np.float32]] = open_session(model.SerializeToString()).run(names, feeds)
    return outputs
