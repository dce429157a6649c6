"""Requests and responses: what goes over the wire, as what the clients take and return.

Nothing of a response is believed: it is held against the contract of the .proto files, and against its request.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from bgan.v1 import model_pb2, sampling_pb2

from ._errors import REQUEST_ID, InvalidRequestError, data_loss
from ._text import printable
from ._types import ImageBatch, Limits, ModelFailure, ModelInfo, ModelList

_SENT = [field.name for field in sampling_pb2.SampleBinaryImagesRequest.DESCRIPTOR.fields]
_LIMITS = [field.name for field in fields(Limits)]
_ROUNDING = 1e-6  # onnxruntime's sigmoid passes 1 by a float's last bit
_CLASSES_NAMED = 20  # in a message, of more
_INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRequest:
    """The arguments of `sample_binary_images`; `checked_request` makes one of anything that a caller gives."""

    image_count: int
    seed: int | None = None
    model: str = ""
    version: int | None = None
    first_index: int = 0
    batch_size: int | None = None
    include_probabilities: bool = False
    revision: str | None = None
    labels: tuple[int | str, ...] = ()
    request_id: str | None = None

    @property
    def end_index(self) -> int:
        """The index after the last image."""
        return self.first_index + self.image_count

    @property
    def has_names(self) -> bool:
        """Whether classes are named, which goes over no wire."""
        return any(isinstance(label, str) for label in self.labels)

    def numbered(self, info: ModelInfo) -> "SampleRequest":
        """The same of a model that was looked up, with numbers for names. Raises InvalidRequestError."""
        numbers = class_numbers(self.labels, info)
        return replace(self, model=info.name, revision=info.revision, labels=numbers)

    def message(self) -> sampling_pb2.SampleBinaryImagesRequest:
        """What goes over the wire."""
        return sampling_pb2.SampleBinaryImagesRequest(**{name: getattr(self, name) for name in _SENT})


def checked_request(
    *,
    image_count: Any,
    seed: Any = None,
    model: Any = None,
    version: Any = None,
    first_index: Any = 0,
    batch_size: Any = None,
    include_probabilities: Any = False,
    revision: Any = None,
    labels: Any = (),
    request_id: Any = None,
) -> SampleRequest:
    """A request that can be sent. Raises InvalidRequestError, which names the first field that cannot."""
    check_request_id(request_id)
    return SampleRequest(
        image_count=check_integer("image_count", image_count),
        seed=None if seed is None else check_integer("seed", seed),
        model="" if model is None else check_text("model", model),
        version=None if version is None else check_integer("version", version),
        first_index=check_integer("first_index", first_index),
        batch_size=None if batch_size is None else check_integer("batch_size", batch_size, most=_INT32_MAX),
        include_probabilities=_check_flag("include_probabilities", include_probabilities),
        revision=None if revision is None else check_text("revision", revision) or None,
        labels=_check_labels(labels),
        request_id=request_id,
    )


def check_integer(name: str, value: Any, *, most: int = _INT64_MAX) -> int:
    """A whole number as Python's own. Raises InvalidRequestError for a value that its field cannot hold."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise InvalidRequestError.of(name, f"is {printable(repr(value))}; use a whole number")
    if not -most <= number <= most:
        raise InvalidRequestError.of(name, f"is out of range; it ends at {most}")
    return number


def check_text(name: str, value: Any) -> str:
    """A text. Raises InvalidRequestError for a value that its field cannot hold."""
    if not isinstance(value, str):
        raise InvalidRequestError.of(name, f"is {printable(repr(value))}; use text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError.of(name, f"is {printable(ascii(value))}, which is no UTF-8 text") from None
    return value


def check_request_id(request_id: Any) -> None:
    """Raises InvalidRequestError for an id that servers do not accept."""
    if request_id is not None and not (isinstance(request_id, str) and REQUEST_ID.fullmatch(request_id)):
        text = f"is {printable(repr(request_id))}; use up to 128 letters, digits and ._:/@+=-"
        raise InvalidRequestError.of("request_id", text)


def _check_flag(name: str, value: Any) -> bool:
    if not (value is None or isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1))):
        raise InvalidRequestError.of(name, f"is {printable(repr(value))}; use True or False")
    return bool(value)


def _check_labels(labels: Any) -> tuple[int | str, ...]:
    """Numbers as Python's own, and names. Raises InvalidRequestError."""
    rule = "use numbers from 0 or names of get_model().classes: one, or a list of them"
    if isinstance(labels, bytes | bytearray | Set | Mapping):  # text that is none, and what has no order
        raise InvalidRequestError.of("labels", f"is {printable(repr(labels))}; {rule}")
    is_one = isinstance(labels, str) or not isinstance(labels, Iterable)
    checked: list[int | str] = []
    for label in (labels,) if is_one else labels:
        if isinstance(label, str):
            checked.append(check_text("labels", label))
            continue
        try:
            number = None if isinstance(label, bool) else operator.index(label)
        except TypeError:
            number = None
        if number is None:
            raise InvalidRequestError.of("labels", f"has {printable(repr(label))}; {rule}")
        if not -_INT32_MAX <= number <= _INT32_MAX:
            raise InvalidRequestError.of("labels", f"is out of range; a label ends at {_INT32_MAX}")
        checked.append(number)
    return tuple(checked)


def class_numbers(labels: Iterable[int | str], info: ModelInfo) -> tuple[int, ...]:
    """The numbers of classes of a model by name or number. Raises InvalidRequestError for a name of none."""
    name = printable(info.name)
    if not info.classes:
        raise InvalidRequestError.of("labels", f"the model {name!r} is not class-conditional; leave labels out")
    numbers = {each: number for number, each in enumerate(info.classes)}
    unknown = next((label for label in labels if isinstance(label, str) and label not in numbers), None)
    if unknown is not None:
        more = ["..."] if len(info.classes) > _CLASSES_NAMED else []
        names = printable(", ".join([*info.classes[:_CLASSES_NAMED], *more]))
        text = f"has {printable(unknown)!r}, but the classes of {name} are {names}"
        raise InvalidRequestError.of("labels", text)
    return tuple(numbers[label] if isinstance(label, str) else label for label in labels)


class LenientChannel:
    """A channel for stubs whose calls answer None for bytes that are no message: gRPC would log a traceback."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def unary_unary(self, path: str, *, response_deserializer: Any, **rest: Any) -> Any:
        return self._channel.unary_unary(path, response_deserializer=_lenient(response_deserializer), **rest)

    def unary_stream(self, path: str, *, response_deserializer: Any, **rest: Any) -> Any:
        return self._channel.unary_stream(path, response_deserializer=_lenient(response_deserializer), **rest)


def _lenient(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse_or_none(content: bytes) -> Any:
        try:
            return parse(content)
        except DecodeError:
            return None

    return parse_or_none


def _check_is_message(response: Any, target: str, next_index: int | None = None) -> None:
    if response is None:
        raise data_loss(target, next_index, "sent bytes that are no message of this call")


def decode_batch(
    response: sampling_pb2.SampleBinaryImagesResponse, *, expected_index: int, target: str
) -> ImageBatch:
    """The images of a response. Raises SamplingError unless it is whole, valid and begins at `expected_index`."""
    _check_is_message(response, target, expected_index)
    shape = response.image_shape
    image_shape = (shape.channels, shape.height, shape.width)
    count, pixels = response.image_count, math.prod(image_shape)
    packed = np.frombuffer(response.packed_images, np.uint8)
    is_whole = min(count, *image_shape) > 0 and packed.size == count * -(-pixels // 8)
    if response.first_index != expected_index or not is_whole:
        sent = f"sent {count} images of {_by(image_shape)} from {response.first_index} in {packed.size} bytes"
        raise data_loss(target, expected_index, f"{sent} where image {expected_index} was next")
    if (problem := next(_invalid_fields(response, packed, pixels), None)) is not None:
        raise data_loss(target, expected_index, f"sent {problem}")
    probabilities = np.frombuffer(response.probabilities, "<f4") if response.probabilities else None
    return ImageBatch(
        model=response.model,
        revision=response.revision,
        seed=response.seed,
        first_index=response.first_index,
        image_shape=image_shape,
        packed_images=packed.reshape(count, -1),
        probabilities=None if probabilities is None else probabilities.reshape(count, *image_shape),
        labels=np.array(response.labels, np.int32) if response.labels else None,
    )


def _invalid_fields(
    response: sampling_pb2.SampleBinaryImagesResponse, packed: npt.NDArray[np.uint8], pixels: int
) -> Iterator[str]:
    """What no response may have, of one whose images have the size that it says."""
    count = response.image_count
    if not response.model or not response.revision:
        yield "images of no model or no revision"
    if response.seed < 0 or response.version < 0:
        yield f"images of seed {response.seed} and version {response.version}"
    if padding_bits := -pixels % 8:
        last_bytes = packed[-(-pixels // 8) - 1 :: -(-pixels // 8)]
        if (last_bytes & ((1 << padding_bits) - 1)).any():
            yield "images with bits beyond their last pixel"
    if len(response.labels) not in {0, count} or min(response.labels, default=0) < 0:
        yield f"{len(response.labels)} labels, or labels below 0, with {count} images"
    if content := response.probabilities:
        if len(content) != 4 * count * pixels:
            yield f"{len(content)} bytes of probabilities with {count} images of {pixels} pixels"
        elif not _are_probabilities(np.frombuffer(content, "<f4")):
            yield "probabilities that are not between 0 and 1"


def _are_probabilities(values: npt.NDArray[np.float32]) -> bool:
    # Both are NaN where any value is.
    return bool(values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING)


def decode_answer(
    response: sampling_pb2.GetModelResponse, request: sampling_pb2.GetModelRequest, target: str
) -> ModelInfo:
    """The model that was asked for. Raises SamplingError for an invalid one, or another."""
    _check_is_message(response, target)
    info = _decode_model(response.model, target)
    _decode_limits(response.limits, target)
    if (request.name or info.name) != info.name or (request.version or info.version) != info.version:
        asked = f"{printable(request.name) or 'the default model'} in version {request.version or 'any'}"
        raise data_loss(target, None, f"sent {printable(info.name)} in version {info.version}, not {asked}")
    if not (request.name or request.version or info.is_default):
        raise data_loss(target, None, f"sent {printable(info.name)}, which it does not call its default model")
    return info


def _decode_model(served: sampling_pb2.ServedModel, target: str) -> ModelInfo:
    manifest = served.model
    shape = (manifest.image_shape.channels, manifest.image_shape.height, manifest.image_shape.width)
    is_valid = min(manifest.latent_size, *shape) > 0 and 0 <= manifest.slope < math.inf and served.version >= 0
    gates = manifest.gates
    is_valid &= gates.count >= 0 and 0 <= gates.mean_active_share <= 1
    if not (is_valid and manifest.name and served.revision):
        what = f"{printable(manifest.name)!r} in version {served.version}, of images of {_by(shape)}"
        raise data_loss(target, None, f"sent an invalid model, {what}")
    return ModelInfo(
        name=manifest.name,
        version=served.version or None,
        revision=served.revision,
        is_default=served.is_default,
        neuron=_enum_name(model_pb2.Neuron, manifest.neuron, target),
        binarization=_enum_name(model_pb2.Binarization, manifest.binarization, target),
        network=manifest.network,
        image_shape=shape,
        latent_size=manifest.latent_size,
        slope=manifest.slope,
        dataset=manifest.dataset,
        run=manifest.training_run.name,
        step=manifest.training_run.step,
        epoch=manifest.training_run.epoch,
        metrics=dict(manifest.metrics),
        classes=tuple(manifest.classes),
        class_counts=tuple(manifest.class_counts),
        arithmetic=_arithmetic(manifest, target),
        part_count=gates.count,
        mean_active_share=gates.mean_active_share if gates.count else None,
    )


class ModelPages:
    """The pages of a list of models: which to ask for next, and what they list together."""

    def __init__(self) -> None:
        self._models: list[ModelInfo] = []
        self._failures: list[ModelFailure] = []
        self._tokens = [""]

    @property
    def next_request(self) -> sampling_pb2.ListModelsRequest:
        """What asks for the next page."""
        return sampling_pb2.ListModelsRequest(page_token=self._tokens[-1])

    def add(self, response: sampling_pb2.ListModelsResponse, target: str) -> ModelList | None:
        """Take a page in; returns the list once it is whole. Raises SamplingError."""
        _check_is_message(response, target)
        self._models += [_decode_model(served, target) for served in response.models]
        names = {(info.name, info.version) for info in self._models}
        if len(names) < len(self._models) or sum(info.is_default for info in self._models) > 1:
            raise data_loss(target, None, "listed a model twice")
        self._failures += [ModelFailure(model=each.model, reason=each.reason) for each in response.failures]
        limits = _decode_limits(response.limits, target)
        if not response.next_page_token:
            return ModelList(models=tuple(self._models), failures=tuple(self._failures), limits=limits)
        if response.next_page_token in self._tokens:
            raise data_loss(target, None, "sent a page of its models twice")
        self._tokens.append(response.next_page_token)
        return None


def _decode_limits(message: sampling_pb2.Limits, target: str) -> Limits:
    limits = Limits(**{name: getattr(message, name) for name in _LIMITS})
    if min(limits.max_image_count, limits.max_batch_size, limits.max_message_bytes) < 1:
        raise data_loss(target, None, f"sent the limits {limits}")
    return limits


def _arithmetic(manifest: model_pb2.Model, target: str) -> str:
    """That of floats has no name of its own."""
    if manifest.arithmetic == model_pb2.ARITHMETIC_UNSPECIFIED:
        return "float"
    return _enum_name(model_pb2.Arithmetic, manifest.arithmetic, target)


def _enum_name(kind: Any, number: int, target: str) -> str:
    """As a model's fields have it: stochastic, of NEURON_STOCHASTIC."""
    if number not in kind.values() or number == 0:
        raise data_loss(target, None, f"sent a model whose {kind.DESCRIPTOR.name.lower()} is number {number}")
    name: str = kind.Name(number)
    return name.partition("_")[2].lower()


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
