"""A module of torch as an ONNX graph."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn

from ..common.errors import ExportError

OPSET = 20
_ROWS = 2  # of the inputs that a module is tried with


def rows(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An input [batch, *shape] to trace a module with."""
    return torch.zeros(_ROWS, *shape, dtype=dtype)


def traced(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    weights: Mapping[str, Tensor] | None = None,
) -> onnx.ModelProto:
    """The graph of a module in eval mode, called with inputs [batch, ...] by name, of any batch.

    With `weights` it is also called with a list of them, `weights`; they are inputs of their names in the graph.
    Raises ExportError if torch gives none.
    """
    weights = weights or {}
    batch = torch.export.Dim("batch", min=1)
    arguments: dict[str, Tensor | list[Tensor]] = dict(inputs)
    shapes: dict[str, object] = {name: {0: batch} for name in inputs}
    if weights:
        arguments["weights"], shapes["weights"] = list(weights.values()), [None] * len(weights)
    with _quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            kwargs=arguments,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[*inputs, *weights],
            output_names=list(outputs),
            dynamic_shapes=shapes,
        )
    if program is None:
        raise ExportError("torch.onnx gave no graph")
    model = program.model_proto  # a new one each time it is read
    _strip_traces(model)
    return model


def _strip_traces(model: onnx.ModelProto) -> None:
    """Drop the exporter's stack traces: they name paths, and a file should depend on its weights alone."""
    graph = model.graph
    for part in (model, graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node):
        del part.metadata_props[:]  # type: ignore[attr-defined]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's own notes off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        try:
            yield
        finally:
            logger.setLevel(level)
