"""Writes a screen as one HTML file: the best, pictures, elastic constants, notes and the ranking; nothing is loaded
from anywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from domains.materials.screening.elastic import DUCTILE, HEAD, Elastic, elastic_cells
from domains.materials.screening.ranking import Ranked
from domains.materials.screening.screen_config import ScreenConfig
from sciml.domain.protocol import NamedFigure
from sciml.report.style import pixels_on_screen

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
h1 { overflow-wrap: anywhere; } summary { cursor: pointer; font-weight: 600; }
img { display: block; max-width: min(100%, var(--wide)); background: #fff; } .muted { color: #5c6874; }
figure { margin: 2rem 0; } .paper { overflow-x: auto; } figcaption { max-width: 46rem; }
@media (max-width: 640px) { img { max-width: none; width: min(660px, var(--wide)); } }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd; } .muted { color: #9aa7b3; } }
"""
FIRST_ROWS, MOST_ROWS = 15, 200
"""How many of the best open the page, and how many can be unfolded at its end."""


def page(
    record: Mapping[str, Any],
    rows: Sequence[Ranked],
    stiff: Sequence[tuple[Ranked, Elastic]],
    figures: Sequence[tuple[NamedFigure, Path]],
    config: ScreenConfig,
) -> str:
    """Returns the page.

    Args:
        record: title, notes and settings.
        rows: the ranking, of which the first are shown.
        stiff: alloys with elastic properties.
        figures: with the files that they were drawn into.
    """
    title = escape(str(record["title"]))
    first, most = min(len(rows), FIRST_ROWS), min(len(rows), MOST_ROWS)
    parts = [f"<h1>{title}</h1>", f"<p class=muted>{escape(str(record['model']['data']))}</p>"]
    parts += [f"<h2>The best {first} of {len(rows):,}</h2>", _ranking(rows[:first], config)]
    parts += [_picture(figure, path) for figure, path in figures]
    if stiff:
        parts += ["<h2>Elastic constants</h2>", _table(HEAD, [elastic_cells(*one) for one in stiff])]
        parts.append(
            f"<p class=muted>Bulk over shear modulus above {DUCTILE:g} (Pugh) and a positive Cauchy pressure C12 - C44 "
            "speak for ductility. After ± the standard deviation among members.</p>"
        )
    parts += ["<h2>Notes</h2><ul>", *(f"<li>{escape(note)}</li>" for note in record["notes"]), "</ul>"]
    if most > first:
        ranking = _ranking(rows[:most], config)
        parts.append(f"<details><summary>The best {most} of {len(rows):,}</summary>{ranking}</details>")
    head = "<meta charset=utf-8><meta name=viewport content='width=device-width, initial-scale=1'>"
    head += f"<meta name=color-scheme content='light dark'><title>{title}</title>"
    return f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"


def _ranking(rows: Sequence[Ranked], config: ScreenConfig) -> str:
    hull = any(row.decomposition for row in rows)
    head = ["composition", "lattice", "enthalpy", "spread", "error", f"free energy, {config.temperature:g} K"]
    head += ["above hull", "comes apart into"] if hull else []
    cells = []
    for row in rows:
        one = row.found
        values = (one.mixing_enthalpy, one.spread, one.decoration_error, row.free_energy)
        cells.append([one.composition, one.lattice, *map(_mev, values)])
        if row.decomposition is not None:
            cells[-1] += [_mev(row.above_hull), row.decomposition.text]
        cells[-1].append(one.outside)
    columns = zip([*head, "outside"], *cells, strict=True)
    told = [column for column in columns if any(column[1:])]
    meaning = (
        "Energies in meV/atom. The enthalpy is relative to the pure elements; its error is that of the mean over "
        "random sites, its spread that among the members of an ensemble."
    )
    names, *lines = zip(*told, strict=True)
    return f"{_table(names, lines)}<p class=muted>{meaning}</p>"


def _mev(value: float | None) -> str:
    return "" if value is None else f"{round(1e3 * value, 1) + 0.0:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _picture(figure: NamedFigure, path: Path) -> str:
    data = path.read_bytes()
    source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    wide = f"--wide: {pixels_on_screen(data)}px"
    image = f"<img alt='{escape(figure.title, quote=True)}' style='{wide}' src='{source}'>"
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>"
    return f"<figure><h2>{escape(figure.title)}</h2><div class=paper>{image}</div>{caption}</figure>"
