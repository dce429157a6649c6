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
_MAX_VALUES = 2**20  # of one image or its latents: hundreds of them are held in memory at once


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


def input_specs(manifest: model_pb2.Model) -> list[TensorSpec]:
    """What the graph takes."""
    specs = [TensorSpec("latents", "float32", (manifest.latent_size,))]
    if takes_uniforms(manifest):
        specs.append(TensorSpec("uniforms", "float32", shape_of(manifest)))
    if manifest.classes:
        specs.append(TensorSpec("labels", "int64", ()))
    return specs


def output_specs(manifest: model_pb2.Model) -> list[TensorSpec]:
    """What the graph gives."""
    shape = shape_of(manifest)
    return [TensorSpec("images", "uint8", shape), TensorSpec("probabilities", "float32", shape)]


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
