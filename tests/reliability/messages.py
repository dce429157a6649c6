"""Bytes to send to a method: valid messages, structured ones that hypothesis draws, mutated and random ones."""

import base64
import random
from collections.abc import Iterator, Sequence
from math import prod

import hypothesis
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from bgan.v1 import model_pb2

_DEEPEST = 3
_EDGES = [0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, -1, -(2**31), -(2**63), 2**64 - 1]
_RANGES = {
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_LENGTHS = (0, 1, 2, 5, 20, 100, 1000, 20_000)
_LARGEST = 4_300_000  # more than a message may have
_WORDS = [
    "latents",
    "uniforms",
    "images",
    "probabilities",
    "FP32",
    "UINT8",
    "classification",
    "*",
    "bgan",
    "\0",
    "no-such",
]
# Random bytes, valid messages, those with one other value, structured ones; the rest is mutated.
_PARTS = (0.1, 0.2, 0.45, 0.55)


def valid_messages(path: str, manifest: model_pb2.Model) -> list[dict]:
    """Requests, as JSON, that a method answers about a model; for the others one without fields."""
    model, latent_size = manifest.name, manifest.latent_size
    sampling = {"model": model, "imageCount": 5, "seed": 7, "firstIndex": 3, "batchSize": 2}
    latents = {"name": "latents", "datatype": "FP32", "shape": [1, latent_size]}
    inputs = [latents, *_other_inputs(manifest)]
    raw = [
        base64.b64encode(bytes(8 if each["datatype"] == "INT64" else 4 * prod(each["shape"]))) for each in inputs
    ]
    labels = {"labels": [0, len(manifest.classes) - 1]} if manifest.classes else {}
    known = {
        "/bgan.v1.SamplingService/SampleBinaryImages": [
            sampling,
            {**sampling, "includeProbabilities": True, **labels},
            {"imageCount": 1, "version": 1, "revision": "0" * 32},
        ],
        "/bgan.v1.SamplingService/GetModel": [{"name": model}, {"name": model, "version": 1}],
        "/inference.GRPCInferenceService/ModelReady": [{"name": model}, {"name": model, "version": "1"}],
        "/inference.GRPCInferenceService/ModelMetadata": [{"name": model}],
        "/inference.GRPCInferenceService/ModelInfer": [
            {"modelName": model, "inputs": [{**each, "contents": _contents(each)} for each in inputs]},
            {
                "modelName": model,
                "inputs": inputs,
                "outputs": [{"name": "images"}],
                "rawInputContents": [content.decode() for content in raw],
            },
        ],
        "/grpc.health.v1.Health/Check": [{"service": "bgan.v1.SamplingService"}],
        "/grpc.health.v1.Health/Watch": [{"service": f"bgan.v1.SamplingService/{model}"}],
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": [
            {"listServices": "*"},
            {"fileByFilename": "bgan/v1/sampling.proto"},
            {"fileContainingSymbol": "bgan.v1.SamplingService"},
            {"fileContainingExtension": {"containingType": "bgan.v1.Model", "extensionNumber": 1}},
            {"allExtensionNumbersOfType": "bgan.v1.Model"},
        ],
    }
    return known.get(path, [{}])


def _contents(tensor):
    """Values of a tensor that its model takes."""
    name, value = ("int64Contents", 0) if tensor["datatype"] == "INT64" else ("fp32Contents", 0.5)
    return {name: [value] * prod(tensor["shape"])}


def _other_inputs(manifest):
    """What a model takes beside latents, for one image."""
    shape = manifest.image_shape
    if manifest.binarization == model_pb2.BINARIZATION_BERNOULLI:
        yield {"name": "uniforms", "datatype": "FP32", "shape": [1, shape.channels, shape.height, shape.width]}
    if manifest.classes:
        yield {"name": "labels", "datatype": "INT64", "shape": [1]}
    if manifest.inner_uniform_count:
        yield {"name": "inner_uniforms", "datatype": "FP32", "shape": [1, manifest.inner_uniform_count]}


def encoded(descriptor, fields: dict) -> bytes:
    """A message of these fields."""
    return json_format.ParseDict(fields, GetMessageClass(descriptor)()).SerializeToString()


@st.composite
def structured(draw, descriptor, words: Sequence[str] = (), depth: int = _DEEPEST):
    """Messages of a kind with any of their fields set to anything that the wire can carry."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if draw(st.booleans()):
            _fill(draw, message, field, [*_WORDS, *words], depth)
    return message


def _fill(draw, message, field, words, depth):
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _fill_map(draw, getattr(message, field.name), field.message_type, words, depth)
    elif field.message_type is not None:
        if depth:
            value = structured(field.message_type, words, depth - 1)
            if field.is_repeated:
                getattr(message, field.name).extend(draw(st.lists(value, max_size=2)))
            else:
                getattr(message, field.name).CopyFrom(draw(value))
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(_scalar(field, words), max_size=4)))
    else:
        setattr(message, field.name, draw(_scalar(field, words)))


def _fill_map(draw, values, entry, words, depth):
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for name in draw(st.lists(_scalar(key, words), max_size=2)):
        if value.message_type is None:
            values[name] = draw(_scalar(value, words))
        elif depth:
            values[name].CopyFrom(draw(structured(value.message_type, words, depth - 1)))


def _scalar(field, words):
    def integers(least, most):
        return st.sampled_from([edge for edge in _EDGES if least <= edge <= most]) | st.integers(least, most)

    return {
        FieldDescriptor.CPPTYPE_INT32: integers(-(2**31), 2**31 - 1),
        FieldDescriptor.CPPTYPE_INT64: integers(-(2**63), 2**63 - 1),
        FieldDescriptor.CPPTYPE_UINT32: integers(0, 2**32 - 1),
        FieldDescriptor.CPPTYPE_UINT64: integers(0, 2**64 - 1),
        FieldDescriptor.CPPTYPE_ENUM: integers(-(2**31), 2**31 - 1),
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
        FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_STRING: (
            st.binary(max_size=40)
            if field.type == FieldDescriptor.TYPE_BYTES
            else st.sampled_from(words) | st.text(max_size=20)
        ),
    }[field.cpp_type]


def drawn(strategy, count: int, seed: int) -> list:
    """That many examples of a strategy, the same for the same seed."""
    found = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def collect(example):
        found.append(example)

    collect()
    return found


class Source:
    """The inputs for one method, endless."""

    def __init__(
        self,
        rng: random.Random,
        valid: Sequence[bytes],
        structured_ones: Sequence[bytes],
        descriptor=None,
        words: Sequence[str] = (),
    ) -> None:
        self._rng, self._descriptor, self._words = rng, descriptor, [*_WORDS, *words]
        self._valid = valid or [b""]
        self._structured = structured_ones or [b""]

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield self._next()

    def _next(self) -> bytes:
        rng, place = self._rng, self._rng.random()
        if place < _PARTS[0]:
            return rng.randbytes(_LARGEST if rng.random() < 0.0005 else rng.choice(_LENGTHS))
        if place < _PARTS[1]:
            return rng.choice(self._valid)
        if place < _PARTS[2] and self._descriptor is not None:
            message = GetMessageClass(self._descriptor).FromString(rng.choice(self._valid))
            _change_one_value(rng, message, self._words)
            return message.SerializeToString()
        if place < _PARTS[3]:
            return rng.choice(self._structured)
        message = rng.choice(rng.choice((self._valid, self._structured)))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            message = mutated(rng, message, rng.choice(self._structured))
        return message


def _change_one_value(rng, message, words):
    """Set one field of a message, or of one in it, to another value, at the edges of its type above all."""
    fields = [field for field in message.DESCRIPTOR.fields if not _is_map(field)]
    if not fields:
        return
    field = rng.choice(fields)
    value = getattr(message, field.name)
    if field.message_type is not None:
        if field.is_repeated and (not value or rng.random() < 0.2):
            value.add()
        _change_one_value(rng, rng.choice(value) if field.is_repeated else value, words)
    elif field.is_repeated:
        drawn = [rng.choice(_values(field, words)) for _ in range(rng.choice((0, 1, 1, 2)))]
        value[rng.randrange(len(value) + 1) :] = drawn
    else:
        setattr(message, field.name, rng.choice(_values(field, words)))


def _is_map(field):
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def with_each_value(descriptor, message: bytes, words: Sequence[str] = ()) -> Iterator[bytes]:
    """A message with each of its fields that is no message set to each of the values at the edges of its type."""
    for field in descriptor.fields:
        for value in [] if field.message_type is not None else _values(field, [*_WORDS, *words]):
            changed = GetMessageClass(descriptor).FromString(message)
            if field.is_repeated:
                getattr(changed, field.name)[:] = [value]
            else:
                setattr(changed, field.name, value)
            yield changed.SerializeToString()


def _values(field, words):
    """Those of a field at the edges of its type, and some between."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        texts = [*words, "", "1", "2", "99", "9" * 18, "9" * 19]
        return [text.encode() for text in texts] if field.type == FieldDescriptor.TYPE_BYTES else texts
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return [0.0, -0.5, 0.5, 1.0, -1e-30, float("nan"), float("inf")]
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return [False, True]
    low, high = _RANGES.get(field.cpp_type, (-(2**31), 2**31 - 1))
    return [value for value in (*_EDGES, 5, 200, 201, 1_001, 5_001) if low <= value <= high]


def mutated(rng: random.Random, message: bytes, other: bytes) -> bytes:
    """A message changed in one place, as bytes or as fields; parts may come from another one."""
    return rng.choice(_MUTATIONS)(rng, message, other)


def _flip(rng, message, other):
    if not message:
        return rng.randbytes(1)
    changed = bytearray(message)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng, message, other):
    return message[: rng.randrange(len(message) + 1)]


def _remove(rng, message, other):
    start, end = _span(rng, message)
    return message[:start] + message[end:]


def _repeat(rng, message, other):
    start, end = _span(rng, message)
    return message[:end] + message[start:end] * rng.choice((1, 2, 50)) + message[end:]


def _insert(rng, message, other):
    place = rng.randrange(len(message) + 1)
    what = rng.choice((rng.randbytes(rng.choice((1, 3, 30))), _varint(rng.choice(_EDGES)), b"\xff\xfe", other))
    return message[:place] + what + message[place:]


def _splice(rng, message, other):
    return message[: rng.randrange(len(message) + 1)] + other[rng.randrange(len(other) + 1) :]


def _nest(rng, message, other):
    """Groups, or fields within fields, deeper than a parser goes."""
    depth, number = rng.choice((3, 99, 101, 1000)), rng.randint(1, 12)
    if rng.random() < 0.5:
        return message + _varint(number << 3 | 3) * depth
    for _ in range(min(depth, 101)):
        message = _varint(number << 3 | 2) + _varint(len(message)) + message
    return message


def _change_field(rng, message, other):
    """One field with another number, kind, value or length, or left out, or twice."""
    fields = list(_fields(message))
    if not fields:
        return _insert(rng, message, other)
    start, tag, end = rng.choice(fields)
    content = message[start + len(_varint(tag)) : end]
    change = rng.randrange(5)
    if change == 0:
        field = _varint(rng.randint(1, 20) << 3 | tag & 7) + content
    elif change == 1:
        field = _varint(tag & ~7 | rng.randrange(8)) + content
    elif change == 2:
        field = _varint(tag) + _varint(rng.choice(_EDGES))
    elif change == 3:
        field = _varint(tag & ~7 | 2) + _varint(rng.choice((1, 4, 10**6, 2**31, 2**63))) + content
    else:
        field = message[start:end] * rng.choice((0, 2, 100))
    return message[:start] + field + message[end:]


_MUTATIONS = (_flip, _cut, _remove, _repeat, _insert, _splice, _nest, _change_field, _change_field, _change_field)


def _span(rng, message):
    return sorted(rng.randrange(len(message) + 1) for _ in range(2))


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    found = bytearray()
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _fields(message: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, tag, end) of each field of a message, as far as it can be read."""
    place = 0
    while place < len(message):
        start = place
        tag, place = _read_varint(message, place)
        kind = tag & 7
        if kind == 0:
            _, place = _read_varint(message, place)
        elif kind == 2:
            length, place = _read_varint(message, place)
            place += length
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            return
        if place > len(message):
            return
        yield start, tag, place


def _read_varint(message, place):
    value = shift = 0
    while place < len(message):
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    return value, len(message) + 1
