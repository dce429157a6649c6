"""Contact sheets: images in labelled rows and columns, as one dark PNG for light and dark pages.

All lengths are multiples of DENSITY pixels of the PNG, which is shown at half its size on screens of usual
density, and sharp on dense ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..common.grids import side_by_side

Pictures = NDArray[np.uint8]
"""Pictures in colour: [N, H, W, 3]."""
DENSITY = 2
ORANGE, BLUE = (255, 176, 0), (74, 163, 255)
PAPER, _INK, _FAINT = "#262930", "#eceef2", "#a6acb8"
_WIDTH = 1000 * DENSITY  # that the cells of a row aim to fill
_LARGEST = 112 * DENSITY  # the longer side of a cell
_MARGIN, _GAP, _SPACE = 16 * DENSITY, 4 * DENSITY, 20 * DENSITY
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
_TITLE, _TEXT = (ImageFont.truetype(_FONT, size * DENSITY) for size in (15, 12))
_LINE, _BASELINE = 22 * DENSITY, 12 * DENSITY


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of pictures, each with its label, under titles of their columns. All pictures have the same shape."""

    heading: str
    """Over the block; empty for none."""
    columns: Sequence[str]
    rows: Sequence[tuple[str, Pictures]]


def grey(values: NDArray[Any]) -> Pictures:
    """[N, C, H, W] in [0, 1] as pictures: three channels are colours, other numbers of them lie side by side."""
    return tinted(values, (255, 255, 255))


def tinted(values: NDArray[Any], colour: tuple[int, int, int] = ORANGE) -> Pictures:
    """As `grey`, but from black to one colour where channels are not colours themselves."""
    if values.shape[1] == 3:
        pictures = values.transpose(0, 2, 3, 1) * np.float32(255)
    else:
        pictures = side_by_side(values)[..., None] * np.array(colour, np.float32)
    return np.rint(pictures).astype(np.uint8)


def draw_sheet(title: str, subject: str, blocks: Sequence[Block]) -> bytes:
    """The sheet as a PNG. The same blocks give the same bytes."""
    layout = _Layout(blocks)
    words = max(_width(title, _TITLE), _width(subject, _TEXT)) + 2 * _MARGIN
    sheet = Image.new("RGB", (max(layout.width, words), layout.height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN + _BASELINE), title, _INK, _TITLE, anchor="ls")
    draw.text((_MARGIN, _MARGIN + _LINE + _BASELINE), subject, _FAINT, _TEXT, anchor="ls")
    top = layout.top
    for block in blocks:
        top = _draw_block(sheet, draw, block, layout, top) + _SPACE
    content = BytesIO()
    sheet.save(content, "png", optimize=True)
    return content.getvalue()


class _Layout:
    """Where things lie on a sheet."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        rows = [row for block in blocks for row in block.rows]
        columns = max(len(cells) for _, cells in rows)
        height, width, _ = rows[0][1][0].shape
        room = min(_LARGEST, _WIDTH // columns - _GAP)
        scale = max(DENSITY, _whole(min(_LARGEST // height, room // width)))
        self.cell_width, self.cell_height = width * scale, height * scale
        titles = max(_width(text, _TEXT) for block in blocks for text in block.columns)
        self.pitch = max(self.cell_width, titles) + _GAP
        self.inset = _whole((self.pitch - _GAP - self.cell_width) // 2)
        self.left = _MARGIN + max(_width(label, _TEXT) for label, _ in rows) + 2 * _GAP
        self.top = _MARGIN + 3 * _LINE
        self.width = self.left + columns * self.pitch - _GAP + _MARGIN
        lines = sum(bool(block.heading) + 1 for block in blocks) * _LINE
        cells = len(rows) * (self.cell_height + _GAP) - _GAP
        self.height = self.top + lines + cells + (len(blocks) - 1) * _SPACE + _MARGIN


def _draw_block(sheet: Image.Image, draw: ImageDraw.ImageDraw, block: Block, layout: _Layout, top: int) -> int:
    """Draw a block at `top`; the result is where it ends."""
    if block.heading:
        draw.text((_MARGIN, top + _BASELINE), block.heading, _INK, _TEXT, anchor="ls")
        top += _LINE
    lefts = [layout.left + i * layout.pitch + layout.inset for i in range(len(block.columns))]
    for left, column in zip(lefts, block.columns, strict=True):
        draw.text((left + layout.cell_width // 2, top + _BASELINE), column, _FAINT, _TEXT, anchor="ms")
    top += _LINE
    size = (layout.cell_width, layout.cell_height)
    for label, cells in block.rows:
        draw.text((layout.left - 2 * _GAP, top + layout.cell_height // 2), label, _FAINT, _TEXT, anchor="rm")
        for left, cell in zip(lefts, cells, strict=True):
            sheet.paste(Image.fromarray(cell).resize(size, Image.Resampling.NEAREST), (left, top))
        top += layout.cell_height + _GAP
    return top - _GAP


def _width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return _whole(int(font.getlength(text)) + DENSITY)


def _whole(length: int) -> int:
    """Whole pixels of a screen of usual density, so that all pixels of an image are equally large on it."""
    return length // DENSITY * DENSITY
