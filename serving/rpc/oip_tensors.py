"""Tensors of the Open Inference Protocol: what a model takes and gives, read from requests, put into answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from open_inference.grpc import protocol

from ..config.settings import ServerSettings
from ..errors import InvalidRequestError
from ..models.engine import Engine
from ..models.manifest import takes_labels, takes_uniforms

_DTYPES: dict[str, npt.DTypeLike] = {"FP32": "<f4", "INT64": "<i8", "UINT8": "u1"}
_CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents"}  # the field of an input's values
_MESSAGE_OVERHEAD_BYTES = 1024  # names, shapes and tags around the tensors, generously
# They would change what a tensor means, so they cannot be passed over like other parameters.
_UNKNOWN_PARAMETERS = ("shared_memory_region", "classification")

_Values = npt.NDArray[Any]
_InputTensor = protocol.ModelInferRequest.InferInputTensor
_OutputTensor = protocol.ModelInferRequest.InferRequestedOutputTensor


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of a model; its first axis, the batch, goes without saying."""

    name: str
    datatype: str
    """FP32, INT64 or UINT8."""
    row_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return _item_bytes(self.datatype) * math.prod(self.row_shape)


def input_specs(engine: Engine) -> list[TensorSpec]:
    """What a model takes."""
    specs = [TensorSpec("latents", "FP32", (engine.manifest.latent_size,))]
    if takes_uniforms(engine.manifest):
        specs.append(TensorSpec("uniforms", "FP32", engine.image_shape))
    if takes_labels(engine.manifest):
        specs.append(TensorSpec("labels", "INT64", ()))
    return specs


def output_specs(engine: Engine) -> list[TensorSpec]:
    """What a model gives."""
    shape = engine.image_shape
    return [TensorSpec("images", "UINT8", shape), TensorSpec("probabilities", "FP32", shape)]


def infer(
    request: protocol.ModelInferRequest, engine: Engine, settings: ServerSettings
) -> protocol.ModelInferResponse:
    """Answer a request; takes the time of an inference. Raises InvalidRequestError."""
    inputs, outputs = input_specs(engine), _requested_outputs(request, output_specs(engine))
    tensors = _read_inputs(request, inputs, _largest_batch(inputs, outputs, settings), engine.class_count)
    images, probabilities = engine.infer(tensors["latents"], tensors.get("uniforms"), tensors.get("labels"))
    contents = {"images": images, "probabilities": probabilities.astype("<f4", copy=False)}
    return protocol.ModelInferResponse(
        model_name=engine.manifest.name,
        model_version=engine.revision,
        id=request.id,
        outputs=[
            protocol.ModelInferResponse.InferOutputTensor(
                name=spec.name, datatype=spec.datatype, shape=contents[spec.name].shape
            )
            for spec in outputs
        ],
        raw_output_contents=[contents[spec.name].tobytes() for spec in outputs],
    )


def _requested_outputs(request: protocol.ModelInferRequest, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The outputs in the order in which they are asked for; all of them if none is named."""
    by_name = {spec.name: spec for spec in specs}
    names = [output.name for output in request.outputs] or list(by_name)
    if len(set(names)) < len(names) or not by_name.keys() >= set(names):
        raise InvalidRequestError(
            {"outputs": f"are {', '.join(names)}; ask for {' and '.join(by_name)}, each at most once"}
        )
    for output in request.outputs:
        _check_parameters(output)
    return [by_name[name] for name in names]


def _largest_batch(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], settings: ServerSettings) -> int:
    """The most rows whose request and whose answer each fit into one message."""
    row_bytes = max(sum(spec.row_bytes for spec in specs) for specs in (inputs, outputs))
    fitting = (settings.max_message_bytes - _MESSAGE_OVERHEAD_BYTES) // row_bytes
    if fitting < 1:
        raise InvalidRequestError({"inputs": f"one row takes {row_bytes} bytes, more than a message may have"})
    return min(settings.max_batch_size, fitting)


def _read_inputs(
    request: protocol.ModelInferRequest, specs: Sequence[TensorSpec], largest_batch: int, class_count: int
) -> dict[str, _Values]:
    """The arrays of a request, by name, each [batch, *row_shape]."""
    names = [tensor.name for tensor in request.inputs]
    wanted = [spec.name for spec in specs]
    if sorted(names) != sorted(wanted):
        raise InvalidRequestError(
            {"inputs": f"are {', '.join(names) or 'none'}; the model takes {' and '.join(wanted)}, each once"}
        )
    raw_contents = request.raw_input_contents or [None] * len(names)
    if len(raw_contents) != len(names):
        raise InvalidRequestError(
            {"raw_input_contents": f"has {len(raw_contents)} entries for {len(names)} inputs; send one for each"}
        )
    sent = {tensor.name: (tensor, raw) for tensor, raw in zip(request.inputs, raw_contents, strict=True)}
    arrays = {spec.name: _read_input(*sent[spec.name], spec, largest_batch, class_count) for spec in specs}
    batches = {name: len(array) for name, array in arrays.items()}
    if len(set(batches.values())) > 1:
        rows = " and ".join(f"{name} has {batch} rows" for name, batch in batches.items())
        raise InvalidRequestError({"inputs": f"differ in their batch; {rows}"})
    return arrays


def _read_input(
    tensor: _InputTensor, raw: bytes | None, spec: TensorSpec, largest_batch: int, class_count: int
) -> _Values:
    _check_header(tensor, spec, largest_batch)
    values = _typed_values(tensor, spec) if raw is None else _raw_values(tensor, raw, spec)
    if spec.name == "uniforms":
        _refuse(tensor, ~((values >= 0) & (values < 1)), values, "uniforms are at least 0 and below 1")
    elif spec.name == "labels":
        wrong = (values < 0) | (values >= class_count)
        _refuse(tensor, wrong, values, f"the classes of the model are 0 to {class_count - 1}")
    else:
        _refuse(tensor, ~np.isfinite(values), values, "latents are finite")
    return values.reshape(tensor.shape)


def _check_header(tensor: _InputTensor, spec: TensorSpec, largest_batch: int) -> None:
    _check_parameters(tensor)
    if tensor.datatype != spec.datatype:
        raise _invalid(tensor, f"has the datatype {tensor.datatype!r}; send {spec.datatype}")
    batch, *row = tensor.shape or [0]
    if tuple(row) != spec.row_shape or not 1 <= batch <= largest_batch:
        expected = ", ".join(["batch", *map(str, spec.row_shape)])
        raise _invalid(
            tensor, f"has the shape {list(tensor.shape)}; send [{expected}] with a batch of 1 to {largest_batch}"
        )


def _check_parameters(tensor: _InputTensor | _OutputTensor) -> None:
    for key in _UNKNOWN_PARAMETERS:
        if key in tensor.parameters:
            raise _invalid(tensor, f"has the parameter {key}, which this server does not know; send it without")


def _item_bytes(datatype: str) -> int:
    return np.dtype(_DTYPES[datatype]).itemsize


def _raw_values(tensor: _InputTensor, raw: bytes, spec: TensorSpec) -> _Values:
    if tensor.HasField("contents"):
        raise _invalid(tensor, "has contents beside raw_input_contents; send one of the two")
    expected = _item_bytes(spec.datatype) * math.prod(tensor.shape)
    if len(raw) != expected:
        raise _invalid(
            tensor, f"has {len(raw)} bytes; {spec.datatype} of the shape {list(tensor.shape)} takes {expected}"
        )
    return np.frombuffer(raw, _DTYPES[spec.datatype])


def _typed_values(tensor: _InputTensor, spec: TensorSpec) -> _Values:
    wanted = _CONTENTS[spec.datatype]
    fields = [field.name for field, _ in tensor.contents.ListFields()]
    if fields != [wanted]:
        found = " and ".join(fields) or "nothing"
        raise _invalid(tensor, f"has its values in {found}; send raw_input_contents or {wanted}")
    contents = getattr(tensor.contents, wanted)
    if len(contents) != math.prod(tensor.shape):
        expected = math.prod(tensor.shape)
        raise _invalid(tensor, f"has {len(contents)} values; the shape {list(tensor.shape)} takes {expected}")
    return np.array(contents, _DTYPES[spec.datatype])


def _refuse(tensor: _InputTensor, wrong: npt.NDArray[np.bool_], values: _Values, rule: str) -> None:
    """Refuse a tensor that has a wrong value; every comparison with NaN is false."""
    if wrong.any():
        place = int(wrong.argmax())
        raise _invalid(tensor, f"has {values[place]} as value {place}; {rule}")


def _invalid(tensor: _InputTensor | _OutputTensor, text: str) -> InvalidRequestError:
    return InvalidRequestError({tensor.name: text})
