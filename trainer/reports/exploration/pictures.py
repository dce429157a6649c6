"""The pictures of an exploration, each with what teaches how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...evaluation.metrics.preactivations import middle_mass
from .explore import AVERAGED, DRAWN, Exploration, Nearest
from .sheet import BLUE, ORANGE, Block, draw_sheet, grey, tinted

_NEURONS = {"dbn": "deterministic neurons (DBN)", "sbn": "stochastic neurons (SBN)", "real": "real-valued outputs"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A contact sheet with its words."""

    name: str
    """Of its file, without .png."""
    title: str
    caption: str
    """What one sees, in plain text."""
    alternative: str
    """What stands for the picture where it cannot be seen."""
    png: bytes


def draw_pictures(exploration: Exploration) -> list[Picture]:
    """All pictures, in the order in which they explain one another."""
    pictures = [_neurons(exploration), _preactivations(exploration), _interpolation(exploration)]
    if exploration.nearest is not None:
        pictures.append(_nearest(exploration, exploration.nearest))
    return pictures


def _picture(
    exploration: Exploration, name: str, title: str, caption: str, alternative: str, blocks: Sequence[Block]
) -> Picture:
    generator = exploration.generator
    subject = f"{generator.name}, step {generator.step}, seed {exploration.plan.seed}"
    return Picture(name, title, caption, alternative, draw_sheet(title, subject, blocks))


def _neurons(exploration: Exploration) -> Picture:
    """The same latents under deterministic and stochastic neurons."""
    count, shown = exploration.plan.images, exploration.plan.draws
    probabilities = exploration.probabilities[:count]
    draws = exploration.draws
    columns = [probabilities, probabilities > 0.5, *draws[:, :shown].swapaxes(0, 1), draws.mean(axis=1)]
    cells = np.stack([grey(column) for column in columns], axis=1)
    pixels = probabilities[0].size
    flips = float(np.minimum(probabilities, 1 - probabilities).sum(axis=(1, 2, 3), dtype=np.float64).mean())
    block = Block(
        "",
        ["p", "p > 0.5", *(f"draw {i + 1}" for i in range(shown)), "mean"],
        [(_latent(exploration, i), row) for i, row in enumerate(cells)],
    )
    return _picture(
        exploration,
        "neurons",
        "One latent, two kinds of neurons",
        "Every pixel has a probability p. A deterministic neuron is on where p is above 0.5; a stochastic one is "
        "drawn, on with probability p whatever its neighbours do, so draws of one latent differ from the "
        f"thresholded image, here in {flips:.1f} of {pixels} pixels on average, and the mean of {AVERAGED} leads "
        f"back to p. {_own_neuron(exploration)}",
        f"Each of {count} rows shows one latent: its probabilities in grey, the thresholded image, draws, and the "
        f"mean of {AVERAGED} draws in grey.",
        [block],
    )


def _latent(exploration: Exploration, index: int) -> str:
    """What a latent is called: by its number, and where there are classes by its image's."""
    classes = exploration.generator.classes
    return f"latent {index + 1}" + (f": {classes[index % len(classes)]}" if classes else "")


def _own_neuron(exploration: Exploration) -> str:
    generator = exploration.generator
    how = "draw 1" if generator.is_stochastic else "the thresholded one"
    return f"This generator was trained with {_NEURONS[generator.training_neuron]}; its image, below, is {how}."


def _preactivations(exploration: Exploration) -> Picture:
    """The probabilities, and where they are undecided."""
    count = exploration.plan.images
    probabilities = exploration.probabilities[:count]
    block = Block(
        "",
        [_latent(exploration, i) for i in range(count)],
        [
            ("p", grey(probabilities)),
            ("near 0.5", tinted(1 - np.abs(2 * probabilities - 1))),
            ("image", grey(exploration.images[:count])),
        ],
    )
    return _picture(
        exploration,
        "preactivations",
        "Preactivated outputs",
        "Above, the probabilities that the neurons binarize, from 0 (black) to 1 (white); in the middle, how near "
        "they are to 0.5: bright where another draw, or a small step of the latent, may flip the pixel. Of the "
        f"pixels shown, {100 * middle_mass(probabilities):.1f} % lie between 0.1 and 0.9."
        + _channel_note(exploration),
        f"Three rows for {count} latents: probabilities in grey, a map that is bright where they are near 0.5, "
        "and the binary images.",
        [block],
    )


def _interpolation(exploration: Exploration) -> Picture:
    """Walks from latent to latent."""
    plan = exploration.plan
    rows = [
        (f"{i + 1} to {(i + 1) % plan.images + 1}", grey(row)) for i, row in enumerate(exploration.interpolation)
    ]
    caption = (
        "Each row walks from one latent to the next, the last one back to the first: a generator that has learned "
        "shapes bends one image into another, one that has learned images by heart jumps. The walk is spherical, "
        "as a straight line between Gaussian latents comes too close to the origin, where hardly any latent lies."
    )
    if exploration.generator.is_stochastic:
        caption += " The random numbers of the neurons are held along a row, so that only the latent moves."
    if exploration.generator.classes:
        caption += " All images of a row are of the class of its first."
    return _picture(
        exploration,
        "interpolation",
        "Latent interpolation",
        caption,
        f"{plan.images} rows of {plan.steps} images, each from the image of one latent to that of the next.",
        [Block("", [f"{step:.2g}" for step in np.linspace(0, 1, plan.steps)], rows)],
    )


def _nearest(exploration: Exploration, nearest: Nearest) -> Picture:
    """The first images and the least new ones, beside the training images that they resemble most."""
    count = exploration.plan.images
    closest = np.argsort(nearest.distances, kind="stable")[:count]
    return _picture(
        exploration,
        "nearest",
        "Nearest training images",
        f"Below each generated image stands the one of {nearest.training_count:,} training images "
        f"({nearest.dataset}) that differs from it in the fewest pixels. {_distances(nearest)} "
        f"{_difference_legend(exploration)}",
        f"Two groups of {count} generated images, each above its nearest training image and a map of the pixels "
        "in which they differ.",
        [
            _comparison(f"The first {count} images", exploration, nearest, np.arange(count)),
            _comparison(f"The {count} of {DRAWN} that are most alike", exploration, nearest, closest),
        ],
    )


def _distances(nearest: Nearest) -> str:
    """How far generated images are from the training images, and real ones beside them."""
    generated, real = nearest.distances, nearest.real_distances
    text = f"Half of {DRAWN} images come within {np.median(generated):.0f} pixels, the most alike within"
    if not len(real):
        return f"{text} {generated.min()}."
    return (
        f"{text} {generated.min()}; of {len(real)} real test images half come within {np.median(real):.0f}, the "
        f"most alike within {real.min()}. A generator that has learned images by heart lies far below real ones."
    )


def _difference_legend(exploration: Exploration) -> str:
    if exploration.generator.image_shape.channels == 3:
        return "Colours show the channels that differ."
    return "Orange is on in the generated image alone, blue in the training image alone."


def _comparison(heading: str, exploration: Exploration, nearest: Nearest, shown: NDArray[np.int64]) -> Block:
    images, neighbours = exploration.images[shown], nearest.neighbours[shown]
    return Block(
        heading,
        [f"{distance} px" for distance in nearest.distances[shown]],
        [
            ("generated", grey(images)),
            ("training", grey(neighbours)),
            ("difference", _difference(images, neighbours)),
        ],
    )


def _difference(images: NDArray[np.uint8], neighbours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if images.shape[1] == 3:
        return grey(images ^ neighbours)
    both = grey(images & neighbours) // 4
    return tinted(images & ~neighbours & 1, ORANGE) + tinted(neighbours & ~images & 1, BLUE) + both


def _channel_note(exploration: Exploration) -> str:
    channels = exploration.generator.image_shape.channels
    if channels == 1:
        return ""
    return " Colours are the three channels." if channels == 3 else f" The {channels} channels lie side by side."
