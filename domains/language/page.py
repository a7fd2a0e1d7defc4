"""Text as a picture: every byte a cell."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciml.report.style import GRID, INK, MODEL_COLOR, MUTED, add_titles, new_figure, save_png, suite_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 80
CELL_WIDTH, CELL_HEIGHT = 0.092, 0.225
"""Inches."""
MOST_BITS = 10.0
"""At which the color ends."""
RETURN, LOZENGE = "\u21b5", "\u25ca"
BREAKS = (" ", RETURN)
FONT = "DejaVu Sans Mono"


@dataclass(frozen=True)
class Cell:
    """Says where a glyph stands, and what is drawn there."""

    row: int
    column: int
    glyph: str


def glyphs_of(text: bytes) -> list[str]:
    """Returns what is drawn for each byte: nothing for all but the last of a character, a lozenge for what is
    no text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    characters = [decoder.decode(bytes([byte]))[-1:] for byte in text]
    shown = {"\n": RETURN, "\ufffd": LOZENGE}
    return [shown.get(glyph, glyph if glyph.isprintable() else LOZENGE) for glyph in characters]


def lay_out(glyphs: Sequence[str], columns: int = COLUMNS) -> list[Cell]:
    """Returns a cell for each glyph; lines end behind a return, and between words where they would be too long.

    The space or return at a line's end may stand one column further out.
    """
    cells: list[Cell] = []
    row = column = 0
    for position, glyph in enumerate(glyphs):
        begins_word = position == 0 or glyphs[position - 1] in BREAKS
        too_long = column + (_word_length(glyphs, position) if begins_word else 1) > columns
        if column and too_long and glyph not in BREAKS:
            row, column = row + 1, 0
        cells.append(Cell(row, column, glyph))
        column += 1
        if glyph == RETURN or column > columns:
            row, column = row + 1, 0
    return cells


def _word_length(glyphs: Sequence[str], position: int) -> int:
    ends = (n for n in range(position, len(glyphs)) if glyphs[n] in BREAKS)
    length = next(ends, len(glyphs)) - position
    return length if length <= COLUMNS else 1  # no line would hold it


def draw_page(example: Mapping[str, np.ndarray], source: str, path: Path) -> Path:
    """Draws held-out text, each byte colored by its surprisal."""
    cells = lay_out(glyphs_of(example["page"].tobytes()))
    rows = cells[-1].row + 1
    shade = np.full((rows, COLUMNS + 1), np.nan)
    for cell, bits in zip(cells, example["page_bits"], strict=True):
        shade[cell.row, cell.column] = bits
    context = len(example["bits_model"])
    with suite_style():
        figure = new_figure(CELL_WIDTH * COLUMNS + 0.5, CELL_HEIGHT * rows + 1.25)
        axes = figure.subplots()
        image = axes.imshow(
            shade, cmap=_colors(), vmin=0, vmax=MOST_BITS, aspect="auto", extent=(0, COLUMNS + 1, rows, 0), zorder=0
        )
        _write(axes, cells, ["white" if bits > 0.62 * MOST_BITS else INK for bits in example["page_bits"]])
        for cell in cells[::context]:
            axes.plot([cell.column, cell.column], [cell.row + 0.08, cell.row + 0.92], color=MODEL_COLOR, linewidth=1.6)
        bar = figure.colorbar(image, ax=axes, location="top", shrink=0.4, aspect=28, pad=0.02, extend="max")
        bar.set_label("bits that a byte cost", fontsize=9)
        bar.outline.set_edgecolor(GRID)
        _bare(axes, rows)
        add_titles(figure, source=source)
        return save_png(figure, path)


def draw_writing(example: Mapping[str, np.ndarray], source: str, path: Path) -> Path:
    """Draws a beginning, and how the model continues it."""
    beginning, written = (
        [glyph for glyph in glyphs_of(example[name].tobytes()) if glyph] for name in ("beginning", "written")
    )
    cells = lay_out([*beginning, *written])
    rows = cells[-1].row + 1
    with suite_style():
        figure = new_figure(CELL_WIDTH * COLUMNS + 0.5, CELL_HEIGHT * rows + 0.5)
        axes = figure.subplots()
        _write(axes, cells, [MUTED] * len(beginning) + [MODEL_COLOR] * len(written))
        _bare(axes, rows)
        add_titles(figure, source=source)
        return save_png(figure, path)


def _write(axes: Axes, cells: Sequence[Cell], colors: Sequence[str]) -> None:
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont(FONT)).get_charmap()
    for cell, color in zip(cells, colors, strict=True):
        if cell.glyph.strip():
            axes.text(
                cell.column + 0.5, cell.row + 0.52, cell.glyph if ord(cell.glyph) in known else LOZENGE, ha="center",
                va="center_baseline", fontsize=9.5, family=FONT, color=MUTED if cell.glyph == RETURN else color,
            )  # fmt: skip


def _bare(axes: Axes, rows: int) -> None:
    axes.set_xlim(-0.2, COLUMNS + 1)
    axes.set_ylim(rows, 0)
    axes.axis("off")


def _colors():
    """Returns a color map from white over sand to dark red."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("surprise", ["#ffffff", "#fbe3c0", "#e8955a", "#b03a2e", "#5a1220"])
