"""The manifest of a model file, and whether the file's graph keeps what it says."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnxruntime
from google.protobuf import json_format

from bgan.v1 import model_pb2

from ..errors import ModelFileError, foreign
from .model_files import NAME
from .noise import CLASS_COUNTS

MANIFEST_KEY = "bgan.model"
_CLASSES_NAMED = 20  # in a message, of more
_MAX_VALUES = 2**20  # of one image or its noise: hundreds of them are held in memory at once
_PARTS = range(2, 1025)
_BINARY = (model_pb2.NEURON_DETERMINISTIC, model_pb2.NEURON_STOCHASTIC)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model's graph; its first axis, the batch, goes without saying."""

    name: str
    dtype: Literal["float32", "int64", "uint8"]
    row_shape: tuple[int, ...]


def read_manifest(session: onnxruntime.InferenceSession) -> model_pb2.Model:
    """The checked manifest of a loaded file. Raises ModelFileError, without the file's name, if it is invalid."""
    try:
        text = session.get_modelmeta().custom_metadata_map.get(MANIFEST_KEY)
        if text is None:
            raise ModelFileError(f"has no manifest (metadata {MANIFEST_KEY!r}); write it with `bgan export`")
        manifest = json_format.Parse(text, model_pb2.Model(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise ModelFileError("has a manifest that cannot be read", detail=str(error)) from error
    _check_fields(manifest)
    _check_tensors("input", input_specs(manifest), session.get_inputs())
    _check_tensors("output", output_specs(manifest), session.get_outputs())
    return manifest


def shape_of(manifest: model_pb2.Model) -> tuple[int, int, int]:
    """(channels, height, width) of one image."""
    shape = manifest.image_shape
    return shape.channels, shape.height, shape.width


def takes_uniforms(manifest: model_pb2.Model) -> bool:
    """Whether the graph has the input `uniforms`."""
    return manifest.binarization == model_pb2.BINARIZATION_BERNOULLI


def is_integer(manifest: model_pb2.Model) -> bool:
    """Whether bits are decided by integers, and so are the same on every machine."""
    return manifest.arithmetic == model_pb2.ARITHMETIC_INTEGER


def part_count(manifest: model_pb2.Model) -> int:
    """How many parts the gates of a generator choose among for each image; 0: it has no gates."""
    return manifest.gates.count


def input_specs(manifest: model_pb2.Model) -> list[TensorSpec]:
    """What the graph takes."""
    specs = [TensorSpec("latents", "float32", (manifest.latent_size,))]
    if takes_uniforms(manifest):
        specs.append(TensorSpec("uniforms", "float32", shape_of(manifest)))
    if manifest.classes:
        specs.append(TensorSpec("labels", "int64", ()))
    if manifest.inner_uniform_count:
        specs.append(TensorSpec("inner_uniforms", "float32", (manifest.inner_uniform_count,)))
    return specs


def output_specs(manifest: model_pb2.Model) -> list[TensorSpec]:
    """What the graph gives."""
    shape = shape_of(manifest)
    specs = [TensorSpec("images", "uint8", shape), TensorSpec("probabilities", "float32", shape)]
    if part_count(manifest):
        specs.append(TensorSpec("gates", "uint8", (part_count(manifest),)))
    return specs


def class_numbers(labels: Sequence[str], manifest: model_pb2.Model) -> tuple[int, ...]:
    """The classes that labels name, or number where no class is named by a number.

    Raises ValueError, which says what there is, where a label is none of them.
    """
    classes = list(manifest.classes)
    if labels and not classes:
        raise ValueError(f"{manifest.name} is not class-conditional; leave it out")
    numbers = {name: number for number, name in enumerate(classes)}
    by_number = ""
    if not any(re.fullmatch(r"-?\d+", name) for name in classes):  # a number can only be the place of a class
        numbers |= {str(number): number for number in range(len(classes))}
        by_number = f", or by number 0 to {len(classes) - 1}"
    for label in labels:
        if label not in numbers:
            names = ", ".join([*classes[:_CLASSES_NAMED], *(["..."] if len(classes) > _CLASSES_NAMED else [])])
            raise ValueError(f"is {foreign(label)!r}; the classes of {manifest.name} are {names}{by_number}")
    return tuple(numbers[label] for label in labels)


def _check_fields(manifest: model_pb2.Model) -> None:
    if not NAME.fullmatch(manifest.name):
        raise ModelFileError(f"has a manifest with the name {manifest.name!r}, which is not a valid one")
    if manifest.latent_size < 1 or min(shape_of(manifest)) < 1:
        raise ModelFileError("has a manifest without a latent size or an image shape")
    if max(manifest.latent_size, math.prod(shape_of(manifest))) > _MAX_VALUES:
        raise ModelFileError(f"has latents or images of more than {_MAX_VALUES} values")
    counts = manifest.class_counts
    if counts and (len(counts) != len(manifest.classes) or min(counts) < 0 or sum(counts) not in CLASS_COUNTS):
        raise ModelFileError("has a manifest whose class counts are not one for each class, 1 to 2^32 - 1 in all")
    if not (manifest.neuron and manifest.binarization):
        raise ModelFileError("has a manifest without a neuron or a binarization")
    if manifest.HasField("gates"):
        _check_gates(manifest.gates, len(manifest.classes))
    _check_inner_neurons(manifest)


def _check_gates(gates: model_pb2.Gates, class_count: int) -> None:
    """Comparisons with NaN are false, so that it is no share either."""
    if gates.count not in _PARTS:
        raise ModelFileError(f"has a manifest of {gates.count} gates; {_PARTS[0]} to {_PARTS[-1]} are allowed")
    if gates.neuron not in _BINARY:
        raise ModelFileError("has a manifest whose gates are neither deterministic nor stochastic neurons")
    if not 0 < gates.rate <= 1:
        raise ModelFileError("has a manifest whose gates' rate is not above 0 and at most 1")
    for what, shares, wanted in (
        ("part", gates.active_shares, gates.count),
        ("part of each class", gates.class_active_shares, class_count * gates.count),
    ):
        if len(shares) not in (0, wanted):
            raise ModelFileError(f"has a manifest whose gates' active shares are not one for each {what}")
    if not all(
        0 <= each <= 1 for each in (gates.mean_active_share, *gates.active_shares, *gates.class_active_shares)
    ):
        raise ModelFileError("has a manifest whose gates' active shares are not from 0 to 1")


def _check_inner_neurons(manifest: model_pb2.Model) -> None:
    """Stochastic gates take a uniform each, stochastic hidden neurons any number of them, others none."""
    count, gates, hidden = manifest.inner_uniform_count, manifest.gates, manifest.hidden_neuron
    if gates.count and hidden:
        raise ModelFileError("has a manifest of gates and of binary hidden neurons; it may have one of them")
    if hidden not in (*_BINARY, model_pb2.NEURON_UNSPECIFIED):
        raise ModelFileError("has a manifest whose hidden neurons are neither deterministic nor stochastic")
    if model_pb2.NEURON_STOCHASTIC not in (gates.neuron, hidden):
        fits = count == 0
    else:
        fits = count == gates.count if gates.count else 1 <= count <= _MAX_VALUES
    if not fits:
        raise ModelFileError(f"has a manifest of {count} inner uniforms, which its inner neurons do not take")


def _check_tensors(kind: str, specs: list[TensorSpec], arguments: list[onnxruntime.NodeArg]) -> None:
    """Compare the graph's inputs, or outputs, with what the manifest promises; the first axis is the batch."""
    found = {argument.name: argument for argument in arguments}
    promised = sorted(spec.name for spec in specs)
    if sorted(found) != promised:
        raise ModelFileError(f"has the {kind}s {sorted(found)} where its manifest promises {promised}")
    for spec in specs:
        argument = found[spec.name]
        batch, *row = argument.shape or [None]
        dtype = f"tensor({spec.dtype.replace('float32', 'float')})"
        if argument.type != dtype or tuple(row) != spec.row_shape or isinstance(batch, int):
            raise ModelFileError(
                f"has the {kind} {spec.name} of {argument.type} {argument.shape} where its manifest "
                f"promises {dtype} {['batch', *spec.row_shape]}"
            )
