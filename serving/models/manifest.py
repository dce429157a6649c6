"""The manifest of a model file, and whether the file's graph keeps what it says."""

from __future__ import annotations

import math
import re

import onnxruntime
from google.protobuf import json_format

from bgan.v1 import model_pb2

from ..errors import ModelFileError

MANIFEST_KEY = "bgan.model"
NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""What a model may be called."""
_VALUES_AT_MOST = 2**20  # of one image or its latents: hundreds of them are held in memory at once


def read_manifest(session: onnxruntime.InferenceSession) -> model_pb2.Model:
    """The checked manifest of a loaded file. Raises ModelFileError, without the file's name, if it is no good."""
    try:
        text = session.get_modelmeta().custom_metadata_map.get(MANIFEST_KEY)
        if text is None:
            raise ModelFileError(f"has no manifest (metadata {MANIFEST_KEY!r}); write it with `bgan export`")
        manifest = json_format.Parse(text, model_pb2.Model(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise ModelFileError("has a manifest that cannot be read", detail=str(error)) from error
    _check_fields(manifest)
    _check_graph(manifest, session)
    return manifest


def shape_of(manifest: model_pb2.Model) -> tuple[int, int, int]:
    """(channels, height, width) of one image."""
    shape = manifest.image_shape
    return shape.channels, shape.height, shape.width


def takes_uniforms(manifest: model_pb2.Model) -> bool:
    """Whether the graph has the input `uniforms`."""
    return manifest.binarization == model_pb2.BINARIZATION_BERNOULLI


def takes_labels(manifest: model_pb2.Model) -> bool:
    """Whether the graph has the input `labels`."""
    return bool(manifest.classes)


def _check_fields(manifest: model_pb2.Model) -> None:
    if not NAME.fullmatch(manifest.name):
        raise ModelFileError(f"has a manifest with the name {manifest.name!r}, which is not a valid one")
    if manifest.latent_size < 1 or min(shape_of(manifest)) < 1:
        raise ModelFileError("has a manifest without a latent size or an image shape")
    if max(manifest.latent_size, math.prod(shape_of(manifest))) > _VALUES_AT_MOST:
        raise ModelFileError(f"has latents or images of more than {_VALUES_AT_MOST} values")
    if not (manifest.neuron and manifest.binarization):
        raise ModelFileError("has a manifest without a neuron or a binarization")


def _check_graph(manifest: model_pb2.Model, session: onnxruntime.InferenceSession) -> None:
    """Compare the graph's inputs and outputs with what the manifest promises; the first axis is the batch."""
    shape = shape_of(manifest)
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {"latents": ("tensor(float)", (manifest.latent_size,))}
    if takes_uniforms(manifest):
        inputs["uniforms"] = ("tensor(float)", shape)
    if takes_labels(manifest):
        inputs["labels"] = ("tensor(int64)", ())
    outputs = {"images": ("tensor(uint8)", shape), "probabilities": ("tensor(float)", shape)}
    for kind, promised, arguments in (
        ("input", inputs, session.get_inputs()),
        ("output", outputs, session.get_outputs()),
    ):
        found = {argument.name: argument for argument in arguments}
        if found.keys() != promised.keys():
            raise ModelFileError(f"has the {kind}s {sorted(found)} where its manifest promises {sorted(promised)}")
        for name, (dtype, row_shape) in promised.items():
            batch, *row = found[name].shape or [None]
            if found[name].type != dtype or tuple(row) != row_shape or isinstance(batch, int):
                raise ModelFileError(
                    f"has the {kind} {name} of {found[name].type} {found[name].shape} where its manifest "
                    f"promises {dtype} {['batch', *row_shape]}"
                )
