"""Figures of a reproduction: grids of samples, preactivated outputs in colour, histograms. All PNG."""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import chain, cycle
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ..common.files import write_atomically
from ..common.grids import GRID_COLUMNS, side_by_side, tiled

Panel = NDArray[np.generic] | None
"""Images or probabilities, [N, C, H, W] in [0, 1]; None where the model was not run."""
DPI = 110
_COLOURS = 128
# Off is black and on is white, as in the binary grids; in between, blue lies under the threshold and red over it.
_PREACTIVATION = LinearSegmentedColormap.from_list(
    "preactivation",
    [(0, "black"), (0.25, "#1f4fd8"), (0.4999, "#9fd3ff"), (0.5001, "#ffd08a"), (0.75, "#d8341f"), (1, "white")],
)


def grid_figure(path: Path, columns: Sequence[tuple[str, bool]], rows: Mapping[str, Sequence[Panel]]) -> None:
    """Grids of images in rows by title, under columns with a title each.

    A column that is True shows probabilities, in colour. A panel that is None says that it was not run.
    """
    size = (3.2 * len(columns) + 0.6, 3.2 * len(rows) + 0.9)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    shown = None
    for axis, (title, _) in zip(axes[0], columns, strict=True):
        axis.set_title(title)
    for axis, title in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(title)
    for axis, images, (_, is_preactivated) in zip(axes.flat, chain(*rows.values()), cycle(columns), strict=False):
        axis.set(xticks=[], yticks=[], facecolor="#bbbbbb")
        if images is None:
            axis.text(0.5, 0.5, "not run", ha="center", va="center", transform=axis.transAxes)
            continue
        colours = _PREACTIVATION if is_preactivated else "gray"
        picture = tiled(side_by_side(images).astype(np.float32), columns=GRID_COLUMNS, gap=1, background=np.nan)
        drawn = axis.imshow(picture, cmap=colours, vmin=0, vmax=1, interpolation="none")
        shown = drawn if is_preactivated else shown
    if shown is not None:
        figure.colorbar(shown, ax=axes, location="bottom", shrink=0.5, aspect=40, label="preactivated output")
    save_figure(figure, path)


def histogram_figure(path: Path, panels: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Histograms of floor(255 p) as shares on a logarithmic axis: one panel a title, one line a model."""
    figure = Figure(figsize=(6 * len(panels), 3.8), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for name, shares in lines.items():
            axis.step(np.arange(len(shares)) / (len(shares) - 1), shares, where="mid", label=name, linewidth=1)
        axis.axvline(0.5, color="grey", linewidth=0.6, linestyle=":")
        axis.set(yscale="log", title=title, xlabel="preactivated output", ylabel="share of pixels")
        axis.legend()
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Save as a palette PNG, a third of the size. The same figure gives the same bytes."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    packed = BytesIO()
    picture = Image.open(drawn).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    picture.save(packed, "png", optimize=True)
    write_atomically(path, packed.getvalue())


def data_url(png: bytes) -> str:
    """A picture as the address of an image that lies within its page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
