"""Plain-text tables: aligned columns of a fixed width, without colors, so that they read the same in a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import NamedTuple

from rich.box import Box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

WIDTH = 140
"""Characters of a line; longer cells are folded, and only a command to paste may be longer."""
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"))
_RULE_BELOW_HEADER = Box("    \n    \n -- \n    \n    \n    \n    \n    \n")


class Column(NamedTuple):
    """Describes a column of a table.

    Attributes:
        is_number: whether cells stand to the right.
        is_folded: whether cells may be folded where the table is too wide.
    """

    header: str
    is_number: bool = False
    is_folded: bool = True


def table(columns: Sequence[str | Column], rows: Iterable[Sequence[object]]) -> Table:
    """Makes a table of rows of cells, one cell a column; None is an empty cell."""
    drawn = Table(box=_RULE_BELOW_HEADER, pad_edge=False, show_edge=False)
    for column in columns:
        header, is_number, is_folded = column if isinstance(column, Column) else Column(column)
        drawn.add_column(header, justify="right" if is_number else "left", overflow="fold", no_wrap=not is_folded)
    for row in rows:
        drawn.add_row(*("" if cell is None else Text(str(cell)) for cell in row))
    return drawn


def facts(values: Mapping[str, str | None]) -> Table:
    """Makes a list of names with their values; None leaves a name out."""
    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in values.items():
        if value is not None:
            drawn.add_row(Text(name), Text(value))
    return drawn


def beside(*tables: RenderableType) -> Table:
    """Places tables beside one another."""
    drawn = Table.grid(padding=(0, 4, 0, 0))
    drawn.add_row(*tables)
    return drawn


def render(*parts: RenderableType | str) -> str:
    """Renders tables and lines below one another; plain strings are never folded."""
    text = []
    for part in parts:
        if isinstance(part, str):
            text.append(part)
            continue
        file = StringIO()
        console = Console(
            file=file, width=WIDTH, color_system=None, force_terminal=False, force_jupyter=False, highlight=False
        )
        console.print(part)
        text += [line.rstrip() for line in file.getvalue().rstrip("\n").split("\n")]
    return "\n".join(text)


def with_prefix(value: float, unit: str, digits: int = 4) -> str:
    """Writes a number with the prefix that fits its size, e.g. ``1.2 TFLOP``."""
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if abs(value) >= size), PREFIXES[-1])
    if not value:
        size, prefix = 1.0, ""
    return f"{value / size:.{digits}g} {prefix}{unit}"


def duration(seconds: float) -> str:
    """Writes seconds as hours, minutes or seconds, whichever fits."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:,.4g} {unit}"
    return with_prefix(seconds, "s")


def count(number: float, noun: str, plural: str = "") -> str:
    """Writes a number with its noun: ``1 node``, ``1,024 nodes``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
