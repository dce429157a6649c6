"""Samples to measure: drawn from a run or a model file, or read from a file of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.errors import SamplesError

# How `bgan sample` and `bgan generate` name what is read here by other names.
_OTHER_NAMES = {"packed_images": "images", "image_shape": "shape"}
_WANTED = {"images", "shape", "probabilities", "labels", "classes"}


@dataclass(frozen=True, slots=True)
class Samples:
    """Binary images, and where they are known the probabilities that they were made from."""

    source: str
    """Where they come from, for tables."""
    images: NDArray[np.uint8]
    """uint8 [N, C, H, W] of 0 and 1."""
    probabilities: NDArray[np.float32] | None = None
    """The preactivated outputs, float32 of the same shape."""
    labels: NDArray[np.int64] | None = None
    """The classes that they were asked to be of, int64 [N]."""
    classes: tuple[str, ...] | None = None
    """The names of these classes, by label; None where they are not known."""

    def first(self, count: int) -> Samples:
        """The first `count` of them, or all if there are fewer."""
        probabilities = None if self.probabilities is None else self.probabilities[:count]
        labels = None if self.labels is None else self.labels[:count]
        return Samples(self.source, self.images[:count], probabilities, labels, self.classes)


def load_samples(path: Path, image_shape: Sequence[int]) -> Samples:
    """The images in a .npy or .npz file, as [N, C, H, W].

    They may be dense, of shape [N, C, H, W], [N, H, W] or [N, pixels], with values 0 and 1, False and True, or 0
    and 255; or packed, uint8 [N, bytes] as numpy's packbits(axis=1) makes them. An .npz holds `images` and may
    hold `shape`, `probabilities`, `labels` and the names of their `classes`, or is as `bgan sample` writes it; of
    one array any name will do.
    Raises SamplesError on anything else.
    """
    return as_samples(_read(path), image_shape, path)


def as_samples(arrays: dict[str, NDArray[Any]], image_shape: Sequence[int], path: Path | str) -> Samples:
    """Samples of arrays by name, as `load_samples` finds them in a file. Raises SamplesError."""
    shape = tuple(int(n) for n in arrays.get("shape", np.array(image_shape)).ravel())
    if shape != tuple(image_shape):
        raise SamplesError(
            f"{path} holds images of shape {_text(shape)}, but those of the data set are {_text(image_shape)}; "
            "name their own data set with --dataset"
        )
    images = _as_images(arrays["images"], shape, path)
    probabilities, labels, classes = (arrays.get(name) for name in ("probabilities", "labels", "classes"))
    return Samples(
        path.name if isinstance(path, Path) else path,
        images,
        None if probabilities is None else _as_probabilities(probabilities, images.shape, path),
        None if labels is None else _as_labels(labels, len(images), path),
        None if classes is None else tuple(map(str, classes.ravel())),
    )


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"images": content}
            names = {name: _OTHER_NAMES.get(name, name) for name in content.files}
            wanted = _WANTED if len(names) > 1 else names.values()  # the others may hold anything
            arrays = {known: content[name] for name, known in names.items() if known in wanted}
            listed = ", ".join(sorted(names.values())) or "nothing"
    except OSError as error:
        raise SamplesError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # numpy and zipfile raise whatever they stumble on
        raise SamplesError(
            f"{path} is not an array file that can be read safely ({str(error).splitlines()[0]}); "
            "save images with numpy.save or numpy.savez_compressed, without objects"
        ) from error
    if len(names) == 1:
        return {"images": next(iter(arrays.values()))}
    if "images" not in arrays:
        raise SamplesError(f"{path} holds {listed}; name the samples images")
    return arrays


def _as_images(array: NDArray[Any], shape: tuple[int, ...], path: Path | str) -> NDArray[np.uint8]:
    pixels = int(np.prod(shape))
    if array.dtype == np.uint8 and array.ndim == 2 and array.shape[1] == (pixels + 7) // 8 != pixels:
        return np.unpackbits(array, axis=1, count=pixels).reshape(-1, *shape)
    if array.shape[1:] not in {shape, (pixels,), shape[1:] if shape[0] == 1 else shape}:
        raise SamplesError(
            f"{path} holds an array of shape {_text(array.shape)}; images of {_text(shape)} are "
            f"[N, {', '.join(map(str, shape))}], [N, {pixels}], or packed uint8 [N, {(pixels + 7) // 8}]"
        )
    return _as_bits(array, path).reshape(-1, *shape)


def _as_bits(array: NDArray[Any], path: Path | str) -> NDArray[np.uint8]:
    if array.dtype.kind not in "biuf":
        raise SamplesError(f"{path} holds values of type {array.dtype}; pixels are 0 and 1")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SamplesError(f"{path} holds NaN or infinite values")
    on, top = array != 0, array.max(initial=0)
    if top not in {0, 1, 255} or (array[on] != top).any():
        raise SamplesError(
            f"{path} holds values other than 0 and 1 (or 0 and 255), such as {array[on & (array != 1)][0]}; "
            "binarize the samples first"
        )
    return np.asarray(on, np.uint8)


def _as_probabilities(array: NDArray[Any], shape: tuple[int, ...], path: Path | str) -> NDArray[np.float32]:
    if array.size != np.prod(shape) or array.dtype.kind != "f":
        raise SamplesError(f"{path}: probabilities are of shape {_text(array.shape)}; they must fit the images")
    if not ((array >= 0) & (array <= 1)).all():
        raise SamplesError(f"{path}: probabilities are not all between 0 and 1")
    return array.astype(np.float32).reshape(shape)


def _as_labels(array: NDArray[Any], count: int, path: Path | str) -> NDArray[np.int64]:
    if array.shape != (count,) or array.dtype.kind not in "iu":
        what = f"labels are {array.dtype} {_text(array.shape)}"
        raise SamplesError(f"{path}: {what}; they are a whole number an image")
    return array.astype(np.int64)


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
