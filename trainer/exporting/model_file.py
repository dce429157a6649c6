"""The ONNX file that a run is exported to: where its manifest lies, and how it is opened."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray

from bgan.v1 import model_pb2

from ..common.errors import SamplesError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime 1.29 and later report home by default

import onnxruntime

MANIFEST_KEY = "bgan.model"
NEURONS = {
    "dbn": model_pb2.NEURON_DETERMINISTIC,
    "sbn": model_pb2.NEURON_STOCHASTIC,
    "real": model_pb2.NEURON_REAL,
}


def open_session(model: bytes | Path) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU."""
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


class OnnxModel:
    """An exported generator. Raises SamplesError if the file is not a model that bgan exported."""

    def __init__(self, path: Path) -> None:
        try:
            self._session = open_session(path)
            properties = self._session.get_modelmeta().custom_metadata_map
            self.manifest = json_format.Parse(
                properties[MANIFEST_KEY], model_pb2.Model(), ignore_unknown_fields=True
            )
        except Exception as error:  # onnxruntime raises classes of its own that it does not export
            reason = str(error).strip().splitlines()[0]
            raise SamplesError(f"{path} is not a model that `bgan export` wrote ({reason})") from error
        self.dataset = self.manifest.dataset
        self.class_count = len(self.manifest.classes)
        """The classes that it makes images of; 0: it takes no labels."""

    def probabilities(
        self, latents: NDArray[np.float32], labels: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """The preactivated outputs, float32 [N, C, H, W], of latents [N, Z] and, with classes, labels [N].

        For models without inner uniforms.
        """
        return self.run(latents, lambda shape: np.zeros(shape, np.float32), labels)[1]

    def run(
        self,
        latents: NDArray[np.float32],
        uniforms: Callable[[tuple[int, ...]], NDArray[np.float32]],
        labels: NDArray[np.int64] | None,
        inner_uniforms: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Images and probabilities, [N, C, H, W], of latents [N, Z], labels [N] and inner uniforms [N, n].

        `uniforms` is called with their shape where the graph takes them.
        """
        feeds = self._feeds(latents, uniforms, labels, inner_uniforms)
        images, probabilities = self._session.run(["images", "probabilities"], feeds)
        return images, probabilities

    def gates(
        self,
        latents: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
        inner_uniforms: NDArray[np.float32] | None,
    ) -> NDArray[np.uint8]:
        """Which of the E parts run for latents [N, Z], labels [N] and inner uniforms [N, n]: [N, E]."""
        feeds = self._feeds(latents, lambda shape: np.zeros(shape, np.float32), labels, inner_uniforms)
        gates: NDArray[np.uint8] = self._session.run(["gates"], feeds)[0]
        return gates

    def _feeds(
        self,
        latents: NDArray[np.float32],
        uniforms: Callable[[tuple[int, ...]], NDArray[np.float32]],
        labels: NDArray[np.int64] | None,
        inner_uniforms: NDArray[np.float32] | None,
    ) -> dict[str, NDArray[Any]]:
        shape = self.manifest.image_shape
        feeds: dict[str, NDArray[Any]] = {"latents": latents}
        if "uniforms" in {each.name for each in self._session.get_inputs()}:
            feeds["uniforms"] = uniforms((len(latents), shape.channels, shape.height, shape.width))
        others = {"labels": labels, "inner_uniforms": inner_uniforms}
        return feeds | {name: values for name, values in others.items() if values is not None}
