"""The pictures of an exploration, each with what teaches how to read it."""

import numpy as np
from numpy.typing import NDArray

from ...evaluation.metrics.preactivations import is_in_the_middle
from ..sheet import Block, grey, tinted
from .explore import AVERAGED, DRAWN, Exploration, Nearest
from .part_pictures import differences, draw_part_pictures
from .picture import Picture, draw_picture, latent_labels

_NEURONS = {"dbn": "deterministic neurons (DBN)", "sbn": "stochastic neurons (SBN)", "real": "real-valued outputs"}


def draw_pictures(exploration: Exploration) -> list[Picture]:
    """All pictures, in the order in which they explain one another."""
    pictures = [_neurons(exploration), _preactivations(exploration), _interpolation(exploration)]
    pictures += draw_part_pictures(exploration)
    if exploration.nearest is not None:
        pictures.append(_nearest(exploration, exploration.nearest))
    return pictures


def _neurons(exploration: Exploration) -> Picture:
    generator, count, shown = exploration.generator, exploration.plan.images, exploration.plan.draws
    probabilities, draws = exploration.probabilities[:count], exploration.draws
    columns = [probabilities, probabilities > 0.5, *draws[:, :shown].swapaxes(0, 1), draws.mean(axis=1)]
    cells = np.stack([*map(grey, columns)], axis=1)
    flips = float(np.minimum(probabilities, 1 - probabilities).sum(axis=(1, 2, 3), dtype=np.float64).mean())
    caption = (
        "Every pixel has a probability p. A deterministic neuron is on where p is above 0.5; a stochastic one is "
        "drawn, on with probability p independently of its neighbours, so draws of one latent differ from the "
        f"thresholded image, here in {flips:.1f} of {probabilities[0].size} pixels on average, and the mean of "
        f"{AVERAGED} leads back to p. This generator was trained with {_NEURONS[generator.training_neuron]}; its "
        f"image, below, is {'draw 1' if generator.is_stochastic else 'the thresholded one'}."
    )
    alternative = (
        f"Each of {count} rows shows one latent: its probabilities in grey, the thresholded image, draws, and the "
        f"mean of {AVERAGED} draws in grey."
    )
    titles = ["p", "p > 0.5", *(f"draw {i + 1}" for i in range(shown)), "mean"]
    block = Block("", titles, list(zip(latent_labels(exploration), cells, strict=True)))
    return draw_picture(exploration, "neurons", "One latent, two kinds of neurons", (caption, alternative), block)


def _preactivations(exploration: Exploration) -> Picture:
    count, channels = exploration.plan.images, exploration.generator.image_shape.channels
    probabilities = exploration.probabilities[:count]
    notes = {1: "", 3: " Colours are the three channels."}
    caption = (
        "Above, the probabilities that the neurons binarize, from 0 (black) to 1 (white); in the middle, how near "
        "they are to 0.5: bright where another draw, or a small step of the latent, may flip the pixel. Of the "
        f"pixels shown, {100 * is_in_the_middle(probabilities).mean():.1f} % lie between 0.1 and 0.9."
        + notes.get(channels, f" The {channels} channels lie side by side.")
    )
    alternative = (
        f"Three rows for {count} latents: probabilities in grey, a map that is bright where they are near 0.5, "
        "and the binary images."
    )
    rows = [
        ("p", grey(probabilities)),
        ("near 0.5", tinted(1 - np.abs(2 * probabilities - 1))),
        ("image", grey(exploration.images[:count])),
    ]
    block = Block("", latent_labels(exploration), rows)
    return draw_picture(exploration, "preactivations", "Preactivated outputs", (caption, alternative), block)


def _interpolation(exploration: Exploration) -> Picture:
    plan = exploration.plan
    caption = (
        "Each row walks from one latent to the next, the last one back to the first: a generator that has learned "
        "shapes bends one image into another, one that has memorized images jumps. The walk is spherical, "
        "as a straight line between Gaussian latents comes too close to the origin, where hardly any latent lies."
    )
    if exploration.generator.is_stochastic:
        caption += " The random numbers of the neurons are held along a row, so that only the latent moves."
    if exploration.generator.classes:
        caption += " All images of a row are of the class of its first."
    alternative = (
        f"{plan.images} rows of {plan.steps} images, each from the image of one latent to that of the next."
    )
    rows = [
        (f"{i + 1} to {(i + 1) % plan.images + 1}", grey(row)) for i, row in enumerate(exploration.interpolation)
    ]
    block = Block("", [f"{step:.2g}" for step in np.linspace(0, 1, plan.steps)], rows)
    return draw_picture(exploration, "interpolation", "Latent interpolation", (caption, alternative), block)


def _nearest(exploration: Exploration, nearest: Nearest) -> Picture:
    """The first images and the least new ones, beside the training images that they resemble most."""
    count, distances = exploration.plan.images, nearest.distances
    legend = (
        "Colours show the channels that differ."
        if exploration.generator.image_shape.channels == 3
        else "Orange is on in the generated image alone, blue in the training image alone."
    )
    caption = (
        f"Below each generated image stands the one of {len(nearest.real.training):,} training images "
        f"({nearest.real.name}) that differs from it in the fewest pixels. Half of {DRAWN} images come within "
        f"{np.median(distances):.0f} pixels, the most alike within {distances.min()}{_real_distances(nearest)}. "
        f"{legend}"
    )
    alternative = (
        f"Two groups of {count} generated images, each above its nearest training image and a map of the pixels "
        "in which they differ."
    )
    closest = np.argsort(distances, kind="stable")[:count]
    blocks = [
        _comparison(f"The first {count} images", exploration, nearest, np.arange(count)),
        _comparison(f"The {count} of {DRAWN} that are most alike", exploration, nearest, closest),
    ]
    return draw_picture(exploration, "nearest", "Nearest training images", (caption, alternative), *blocks)


def _real_distances(nearest: Nearest) -> str:
    real = nearest.real_distances
    if not len(real):
        return ""
    return (
        f"; of {len(real)} real test images half come within {np.median(real):.0f}, the most alike within "
        f"{real.min()}. A generator that has memorized images lies far below real ones"
    )


def _comparison(heading: str, exploration: Exploration, nearest: Nearest, shown: NDArray[np.int64]) -> Block:
    images, neighbours = exploration.images[shown], nearest.neighbours[shown]
    return Block(
        heading,
        [f"{distance} px" for distance in nearest.distances[shown]],
        [
            ("generated", grey(images)),
            ("training", grey(neighbours)),
            ("difference", differences(images, neighbours)),
        ],
    )
