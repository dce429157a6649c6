"""Tensors of the Open Inference Protocol, read from requests and put into answers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bgan.inference import open_inference_grpc_pb2 as oip

from ..config.settings import ServerSettings
from ..errors import InvalidRequestError, foreign
from ..models.engine import Engine
from ..models.manifest import TensorSpec, input_specs, output_specs
from ..telemetry.metrics import NO_METRICS, Metrics
from .pool import Steps
from .stream_plan import largest_batch

_DATATYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}
_CONTENTS = {"float32": "fp32_contents", "int64": "int64_contents"}  # the field of an input's values
_NOISE = ("latents", "uniforms", "labels", "inner_uniforms")  # as `Engine.infer` takes it
_UNIFORMS = ("uniforms", "inner_uniforms")
_MESSAGE_OVERHEAD_BYTES = 1024  # names, shapes and tags around the tensors, generously
# They would change what a tensor means, so they cannot be passed over like other parameters.
_UNKNOWN_PARAMETERS = ("shared_memory_region", "classification")

_MAX_NAMES = 8  # that a message shows of those sent
_MAX_DIMENSIONS = 8

_Values = npt.NDArray[Any]
_InputTensor = oip.ModelInferRequest.InferInputTensor
_OutputTensor = oip.ModelInferRequest.InferRequestedOutputTensor


def metadata(spec: TensorSpec) -> oip.ModelMetadataResponse.TensorMetadata:
    """How the protocol describes a tensor; its batch is of any size."""
    return oip.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=_DATATYPES[spec.dtype], shape=[-1, *spec.row_shape]
    )


def infer(
    request: oip.ModelInferRequest, engine: Engine, settings: ServerSettings, metrics: Metrics = NO_METRICS
) -> Steps[oip.ModelInferResponse]:
    """Answer a request, a step for each inference. Raises InvalidRequestError."""
    inputs, outputs = input_specs(engine.manifest), _requested_outputs(request, output_specs(engine.manifest))
    bytes_a_row = max(sum(map(row_bytes, specs)) for specs in (inputs, outputs))
    most = largest_batch(bytes_a_row, _MESSAGE_OVERHEAD_BYTES, settings)
    if most < 1:
        raise InvalidRequestError({"inputs": f"one row takes {bytes_a_row} bytes, more than a message may have"})
    tensors = _read_inputs(request, inputs, most, engine.class_count)
    contents = yield from _infer(tensors, engine)
    if (gates := contents.get("gates")) is not None:
        metrics.routed(engine.manifest.name, len(gates), gates.sum(0, dtype=np.int64).tolist())
    return oip.ModelInferResponse(
        model_name=engine.manifest.name,
        model_version=engine.revision,
        id=request.id,
        outputs=[
            oip.ModelInferResponse.InferOutputTensor(
                name=spec.name, datatype=_DATATYPES[spec.dtype], shape=contents[spec.name].shape
            )
            for spec in outputs
        ],
        raw_output_contents=[_little_endian(contents[spec.name]).tobytes() for spec in outputs],
    )


def _infer(tensors: dict[str, _Values], engine: Engine) -> Steps[dict[str, _Values]]:
    """The outputs of a batch, by name; one whose rows do not depend on each other is run in parts."""
    count = len(tensors["latents"])
    rows = engine.run_rows if engine.tile_rows is None else count
    parts: list[list[_Values]] = []
    for start in range(0, count, rows):
        if parts:
            yield
        noise = [None if each not in tensors else tensors[each][start : start + rows] for each in _NOISE]
        parts.append(engine.infer(*noise))  # type: ignore[arg-type] # it takes latents
    names = [spec.name for spec in output_specs(engine.manifest)]
    columns = zip(names, zip(*parts, strict=True), strict=True)
    return {name: np.concatenate(values) for name, values in columns}


def _little_endian(values: _Values) -> _Values:
    return values.astype(values.dtype.newbyteorder("<"), copy=False)


def _requested_outputs(request: oip.ModelInferRequest, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The outputs in the order in which they are asked for; all of them if none is named."""
    by_name = {spec.name: spec for spec in specs}
    names = [output.name for output in request.outputs] or list(by_name)
    if len(set(names)) < len(names) or not by_name.keys() >= set(names):
        raise InvalidRequestError(
            {"outputs": f"are {_listed(names)}; ask for {' and '.join(by_name)}, each at most once"}
        )
    for output in request.outputs:
        _check_parameters(output)
    return [by_name[name] for name in names]


def _read_inputs(
    request: oip.ModelInferRequest, specs: Sequence[TensorSpec], most: int, class_count: int
) -> dict[str, _Values]:
    """The arrays of a request, by name, each [batch, *row_shape] with a batch of at most `most`."""
    names, wanted = [tensor.name for tensor in request.inputs], [spec.name for spec in specs]
    if sorted(names) != sorted(wanted):
        raise InvalidRequestError(
            {"inputs": f"are {_listed(names) or 'none'}; the model takes {' and '.join(wanted)}, each once"}
        )
    raw_contents = request.raw_input_contents or [None] * len(names)
    if len(raw_contents) != len(names):
        raise InvalidRequestError(
            {"raw_input_contents": f"has {len(raw_contents)} entries for {len(names)} inputs; send one for each"}
        )
    sent = {tensor.name: (tensor, raw) for tensor, raw in zip(request.inputs, raw_contents, strict=True)}
    arrays = {spec.name: _read_input(*sent[spec.name], spec, most, class_count) for spec in specs}
    batches = {name: len(array) for name, array in arrays.items()}
    if len(set(batches.values())) > 1:
        rows = " and ".join(f"{name} has {batch} rows" for name, batch in batches.items())
        raise InvalidRequestError({"inputs": f"differ in their batch; {rows}"})
    return arrays


def _read_input(tensor: _InputTensor, raw: bytes | None, spec: TensorSpec, most: int, class_count: int) -> _Values:
    _check_header(tensor, spec, most)
    values = _typed_values(tensor, spec) if raw is None else _raw_values(tensor, raw, spec)
    if spec.name in _UNIFORMS:  # every comparison with NaN is false
        valid, rule = (values >= 0) & (values < 1), "uniforms are at least 0 and below 1"
    elif spec.name == "labels":
        valid = (values >= 0) & (values < class_count)
        rule = f"the classes of the model are 0 to {class_count - 1}"
    else:
        valid, rule = np.isfinite(values), "latents are finite"
    if not valid.all():
        index = int(valid.argmin())
        raise _invalid(tensor, f"has {values[index]} as value {index}; {rule}")
    return values.reshape(tensor.shape)


def _check_header(tensor: _InputTensor, spec: TensorSpec, most: int) -> None:
    _check_parameters(tensor)
    datatype = _DATATYPES[spec.dtype]
    if tensor.datatype != datatype:
        raise _invalid(tensor, f"has the datatype '{foreign(tensor.datatype)}'; send {datatype}")
    # A shape may have a million entries; what is beyond those of any model decides nothing.
    batch, *row = tensor.shape[:_MAX_DIMENSIONS] or [0]
    if tuple(row) != spec.row_shape or not 1 <= batch <= most:
        expected = ", ".join(["batch", *map(str, spec.row_shape)])
        raise _invalid(
            tensor,
            f"has the shape {list(tensor.shape[:_MAX_DIMENSIONS])}; send [{expected}] with a batch of 1 to {most}",
        )


def _check_parameters(tensor: _InputTensor | _OutputTensor) -> None:
    for key in _UNKNOWN_PARAMETERS:
        if key in tensor.parameters:
            raise _invalid(tensor, f"has the parameter {key}, which this server does not know; send it without")


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*map(foreign, names[:_MAX_NAMES]), *(["..."] if len(names) > _MAX_NAMES else [])])


def row_bytes(spec: TensorSpec) -> int:
    """Bytes of a tensor's row."""
    return np.dtype(spec.dtype).itemsize * math.prod(spec.row_shape)


def _raw_values(tensor: _InputTensor, raw: bytes, spec: TensorSpec) -> _Values:
    if tensor.HasField("contents"):
        raise _invalid(tensor, "has contents beside raw_input_contents; send one of the two")
    expected = tensor.shape[0] * row_bytes(spec)
    if len(raw) != expected:
        text = f"has {len(raw)} bytes; {tensor.datatype} of the shape {list(tensor.shape)} takes {expected}"
        raise _invalid(tensor, text)
    return np.frombuffer(raw, np.dtype(spec.dtype).newbyteorder("<"))


def _typed_values(tensor: _InputTensor, spec: TensorSpec) -> _Values:
    wanted, expected = _CONTENTS[spec.dtype], math.prod(tensor.shape)
    fields = [field.name for field, _ in tensor.contents.ListFields()]
    if fields != [wanted]:
        found = " and ".join(fields) or "nothing"
        raise _invalid(tensor, f"has its values in {found}; send raw_input_contents or {wanted}")
    contents = getattr(tensor.contents, wanted)
    if len(contents) != expected:
        raise _invalid(tensor, f"has {len(contents)} values; the shape {list(tensor.shape)} takes {expected}")
    return np.array(contents, np.dtype(spec.dtype).newbyteorder("<"))


def _invalid(tensor: _InputTensor | _OutputTensor, text: str) -> InvalidRequestError:
    return InvalidRequestError({tensor.name: text})
