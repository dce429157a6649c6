"""The pictures of a generator with gates: which parts ran, for which classes, and what each does."""

import numpy as np
from numpy.typing import NDArray

from ...evaluation.generator import TrainedGates
from ..sheet import BLUE, ORANGE, Block, Pictures, grey, tinted
from .explore import Exploration
from .parts import TURNED, Parts
from .picture import Picture, draw_picture, latent_labels

_SHOWN = 32  # parts, at most
_OFF = (58, 63, 73)
_MAP_CELL = (2, 5)


def draw_part_pictures(exploration: Exploration) -> list[Picture]:
    """All pictures of the parts; none of a generator without gates."""
    own, parts = exploration.generator.gates, exploration.parts
    if own is None or parts is None:
        return []
    pictures = [_ran(exploration, own, parts), _classes(exploration, own, parts)]
    return pictures if parts.turned is None else [*pictures, _turned(exploration, parts, parts.turned)]


def _ran(exploration: Exploration, own: TrainedGates, parts: Parts) -> Picture:
    """Each latent's image, and a square for each part that ran."""
    count, shown = exploration.plan.images, min(own.count, _SHOWN)
    images, gates = exploration.images[:count], parts.gates[:count]
    running = gates.sum(axis=1)
    caption = (
        f"For each image its gates decide which of {own.count} parts run, beside a trunk that always does. Orange "
        f"squares are parts that ran: {running.min()} to {running.max()} of them here, "
        f"{100 * parts.gates.mean():.0f} % of all parts over {len(parts.gates)} images; training aimed at "
        f"{100 * own.rate:.0f} %."
    )
    caption += f" The first {shown} parts are shown." if shown < own.count else ""
    if own.forced is None:
        caption += (
            " A model file tells its gates but takes none; explore its run to see images with a part forced on or "
            "off."
        )
    alternative = f"{count} rows: an image, and for each of {shown} parts a square that is orange where it ran."
    squares = _squares(gates[:, :shown], grey(images).shape[1:3])
    cells = [np.concatenate([image[None], row]) for image, row in zip(grey(images), squares, strict=True)]
    columns = ["image", *_part_names(shown)]
    block = Block("", columns, list(zip(latent_labels(exploration), cells, strict=True)))
    return draw_picture(exploration, "parts", "Which parts ran", (caption, alternative), block)


def _squares(gates: NDArray[np.uint8], size: tuple[int, ...]) -> Pictures:
    """Gates [N, P] as squares of one colour [N, P, H, W, 3]."""
    colours = np.where(gates[..., None] > 0, *(np.array(colour, np.uint8) for colour in (ORANGE, _OFF)))
    return np.broadcast_to(colours[:, :, None, None], (*gates.shape, *size, 3)).copy()


def _part_names(count: int) -> list[str]:
    return [f"part {part}" for part in range(count)]


def _classes(exploration: Exploration, own: TrainedGates, parts: Parts) -> Picture:
    """The share of images for which each part runs, by class."""
    shown, classes = min(own.count, _SHOWN), exploration.generator.classes
    least, most = parts.shares.min(), parts.shares.max()
    caption = (
        "The share of images for which each part runs, from none (black) to all (orange)"
        f"{', by class' if classes else ''}: from {100 * least:.0f} to {100 * most:.0f} %."
    )
    if classes:
        caption += " A part that serves some classes alone has learned something of them."
    alternative = f"A map of {len(parts.shares)} rows and {shown} parts, the brighter the more often a part runs."
    rows = [
        (name, tinted(np.broadcast_to(row[:shown, None, None, None], (shown, 1, *_MAP_CELL))))
        for name, row in zip(classes or ("all",), parts.shares, strict=True)
    ]
    block = Block("", _part_names(shown), rows)
    return draw_picture(exploration, "classes", "Parts and classes", (caption, alternative), block)


def _turned(exploration: Exploration, parts: Parts, turned: NDArray[np.uint8]) -> Picture:
    """What each part does to the image of each latent: with it against without it, all other gates as they are."""
    count, shown = turned.shape[:2]
    images = exploration.images[:count]
    ran = parts.gates[:count, :shown, None, None, None] > 0
    own = np.broadcast_to(images[:, None], turned.shape)
    with_part, without = np.where(ran, own, turned), np.where(ran, turned, own)
    changed = (own != turned).sum(axis=(2, 3, 4)).mean(axis=0)
    legend = (
        "Colours show the channels that differ."
        if images.shape[1] == 3
        else "Orange is on only with the part, blue only without it, grey either way."
    )
    caption = (
        "The same latent with one part forced on, and off, whatever its own gate says; all other gates stay. "
        f"{legend} Above each part stands how many pixels that changes on average."
    )
    caption += f" The first {TURNED} parts are shown." if shown < parts.gates.shape[1] else ""
    alternative = f"{count} rows: an image, and for each of {shown} parts the pixels that it turns on and off."
    cells = [
        np.concatenate([grey(image[None]), differences(*both)])
        for image, *both in zip(images, with_part, without, strict=True)
    ]
    columns = ["as it is", *(f"part {part}: {pixels:.0f} px" for part, pixels in enumerate(changed))]
    block = Block("", columns, list(zip(latent_labels(exploration), cells, strict=True)))
    return draw_picture(exploration, "forced", "One part, on and off", (caption, alternative), block)


def differences(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Pictures:
    """What images [N, C, H, W] have alone is orange, what the others have alone blue, and what both have grey."""
    if first.shape[1] == 3:
        return grey(first ^ second)
    both: Pictures = grey(first & second) // 4
    return tinted(first & ~second & 1, ORANGE) + tinted(second & ~first & 1, BLUE) + both
