"""What people look at in a generator: interpolation, two kinds of neurons, and the nearest training images.

Shapes: N latents shown, S steps of an interpolation, D draws, Z latent size; an image is [C, H, W]. Images are
uint8 of 0 and 1, probabilities float32 in [0, 1].
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...common.errors import DataError, UserError
from ...common.rng import random_stream
from ...config.images import DATASETS, DatasetSpec
from ...config.setting import SettingsGroup, setting
from ...data.catalog import open_dataset, resolved_spec
from ...data.dataset import BinaryDataset
from ...evaluation.generator import TrainedGenerator
from ...evaluation.metrics.memorization import nearest_distances, nearest_images
from ...evaluation.reference import Images, Report
from .parts import Parts, explore_parts

DRAWN = 500
"""Images that are drawn; the first of them are shown, and all compared with the training images."""
AVERAGED = 64
"""Draws of each latent that are averaged."""
TEST_IMAGES = 500
TRAINING_IMAGES = 60_000  # of a file or folder


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplorationOptions(SettingsGroup):
    """How much to show. Raising a count keeps existing images, except the interpolation back to latent 1."""

    images: int = setting("Latents to show.", 8, at_least=1, at_most=DRAWN)
    steps: int = setting("Images from one latent to the next.", 11, at_least=2)
    draws: int = setting("Draws of each latent to show.", 8, at_least=1, at_most=AVERAGED)
    seed: int = setting("Decides the latents and all noise.", 0, at_least=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RealImages:
    """The images of a data set, [N, C, H, W]."""

    name: str
    training: Images
    test: Images
    """At most TEST_IMAGES that were not trained on; none where all were."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest:
    """Generated images and the training images that differ from them in the fewest pixels."""

    real: RealImages
    neighbours: Images
    """The nearest training image of each of the DRAWN images."""
    distances: NDArray[np.int64]
    """Pixels in which each differs from that: [DRAWN]."""
    real_distances: NDArray[np.int64]
    """The same of real test images; empty where there are none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exploration:
    """What the pictures show."""

    generator: TrainedGenerator
    plan: ExplorationOptions
    probabilities: NDArray[np.float32]
    """Of all that are drawn, [DRAWN, C, H, W]; the first N are those shown."""
    images: Images
    """What the generator's own neurons make of them, [DRAWN, C, H, W]."""
    interpolation: Images
    """Row i leads from latent i to the next, and the last one back to the first: [N, S, C, H, W]."""
    draws: Images
    """Of each latent shown, [N, AVERAGED, C, H, W]. The first one is its image if the neurons are stochastic."""
    parts: Parts | None
    """None: all of the generator runs for every image."""
    nearest: Nearest | None


def load_real_images(
    generator: TrainedGenerator, dataset: BinaryDataset | str | None, data_dir: str | None, report: Report
) -> RealImages:
    """The images of the data set that is named or given, or of the generator's own.

    Raises DataError where they cannot be had or have another shape than the generator's.
    """
    try:
        spec = generator.dataset_spec
        if isinstance(dataset, BinaryDataset):
            return _given_images(generator, dataset)
        if dataset is not None:
            spec = DatasetSpec(dataset=dataset, data_dir=spec.data_dir)
        if dataset is None and spec.path is None and spec.digest is not None:
            raise DataError(f"the images of {spec.dataset} were given from Python; give them again as dataset=")
        advice = f"name one of {', '.join(DATASETS)} with --dataset"
        spec = resolved_spec(spec, data_dir=data_dir, say=report, advice=advice)
        report(f"reading {spec.dataset}")
        training = open_dataset(spec, split=generator.training_split).in_memory(TRAINING_IMAGES)
        _check_shape(generator, training)
        test = training.numpy()[:0]
        if generator.training_split == "train":
            test = open_dataset(spec, split="test").first(TEST_IMAGES).numpy()
    except UserError as error:
        raise DataError(f"{error}, or leave the nearest training images out with --no-nearest") from error
    return RealImages(name=spec.dataset, training=training.numpy(), test=test)


def _given_images(generator: TrainedGenerator, dataset: BinaryDataset) -> RealImages:
    """Images that were given, all of them as trained on."""
    _check_shape(generator, dataset)
    training = dataset.in_memory(TRAINING_IMAGES).numpy()
    return RealImages(name=dataset.name, training=training, test=training[:0])


def _check_shape(generator: TrainedGenerator, dataset: BinaryDataset) -> None:
    if dataset.image_shape != generator.image_shape:
        own, other = ("x".join(map(str, shape)) for shape in (generator.image_shape, dataset.image_shape))
        raise DataError(
            f"{generator.name} makes images of {own}, but those of {dataset.name} are {other}; "
            "name its own data set with --dataset"
        )


def explore(
    generator: TrainedGenerator,
    plan: ExplorationOptions,
    real: RealImages | None,
    report: Report = lambda text: None,
) -> Exploration:
    """Compute everything that is shown; without real images all but the nearest of them."""

    def uniforms(count: int, index: int) -> NDArray[np.float32]:
        """Stream 0 is that of the images, i + 1 that of the further draws of latent i."""
        random = random_stream(plan.seed, "exploration uniforms", index)
        return torch.rand(count, *generator.image_shape, generator=random).numpy()

    report(f"drawing {DRAWN} images of {generator.name}")
    random = random_stream(plan.seed, "exploration")
    latents = torch.randn(DRAWN, generator.latent_size, generator=random).numpy()
    own, inner = uniforms(DRAWN, 0), _inner_uniforms(generator, plan.seed)
    labels = _labels(generator, np.arange(DRAWN))
    probabilities = generator.probabilities(latents, labels, inner)
    images = _binarized(generator, probabilities, own)
    draws = [
        np.concatenate([own[i : i + 1], uniforms(AVERAGED - 1, i + 1)]) < probabilities[i]
        for i in range(plan.images)
    ]
    report(f"interpolating between {plan.images} latents")

    def walk(i: int) -> Images:
        path = slerp(latents[i], latents[(i + 1) % plan.images], plan.steps)
        held = None if inner is None else np.repeat(inner[i : i + 1], plan.steps, axis=0)
        row = generator.probabilities(path, _labels(generator, np.full(plan.steps, i)), held)
        return _binarized(generator, row, own[i])

    def of_shown(outputs: NDArray[np.float32]) -> Images:
        return _binarized(generator, outputs, own[: plan.images])

    gates = generator.gates
    parts = None if gates is None else explore_parts(gates, latents, labels, inner, plan.images, of_shown)
    return Exploration(
        generator=generator,
        plan=plan,
        probabilities=probabilities,
        images=images,
        interpolation=np.stack([walk(i) for i in range(plan.images)]),
        draws=np.stack(draws).astype(np.uint8),
        parts=parts,
        nearest=None if real is None else _nearest(images, real, report),
    )


def slerp(start: NDArray[np.float32], end: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """The spherical path between two latents [Z], [steps, Z]: their angle passes evenly (White 2016).

    Between latents on one line, which have no angle to turn by, the path is straight.
    """
    first, last = start.astype(np.float64), end.astype(np.float64)
    cosine = first @ last / (np.linalg.norm(first) * np.linalg.norm(last))
    angle = np.arccos(np.clip(cosine, -1, 1))
    t = np.linspace(0, 1, steps)[:, None]
    if np.sin(angle) < 1e-6:
        path = (1 - t) * first + t * last
    else:
        path = (np.sin((1 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle)
    return path.astype(np.float32)


def _labels(generator: TrainedGenerator, latents: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The classes of the latents of these numbers: one after the other, in turns."""
    return latents % len(generator.classes) if generator.classes else None


def _inner_uniforms(generator: TrainedGenerator, seed: int) -> NDArray[np.float32] | None:
    """What the inner neurons of each latent compare with, [DRAWN, n], in every picture; None: nothing."""
    if not generator.inner_uniform_count:
        return None
    random = random_stream(seed, "exploration inner uniforms")
    drawn: NDArray[np.float32] = torch.rand(DRAWN, generator.inner_uniform_count, generator=random).numpy()
    return drawn


def _nearest(images: Images, real: RealImages, report: Report) -> Nearest:
    report(f"searching {len(real.training)} training images for the nearest")
    neighbours = real.training[nearest_images(images, real.training)]
    return Nearest(
        real=real,
        neighbours=neighbours,
        distances=(images != neighbours).sum(axis=(1, 2, 3)),
        real_distances=nearest_distances(real.test, real.training),
    )


def _binarized(
    generator: TrainedGenerator, probabilities: NDArray[np.float32], uniforms: NDArray[np.float32]
) -> Images:
    images: Images = (probabilities > (uniforms if generator.is_stochastic else 0.5)).astype(np.uint8)
    return images
