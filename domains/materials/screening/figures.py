"""Pictures of a screen: the best alloys, maps of three and four elements, and which pairs like each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from domains.materials.screening.mixing import Mixing
from domains.materials.screening.ranking import Ranked
from domains.materials.screening.screen_config import ScreenConfig
from domains.materials.screening.ternary import draw_tetrahedron, draw_triangle
from sciml.domain.protocol import NamedFigure
from sciml.report.style import INK, MODEL_COLOR, UNDECLARED_COLORS, add_titles, new_figure, save_png, suite_style

Array = np.ndarray
MOST_TRIANGLES = 10
MEV = 1e3
UNCERTAIN, PAIR = "uncertainty", "equimolar pair"
LITTLE = 0.1
"""Values of one sign that are this small beside those of the other do not ask for a color of their own."""
LATTICE_COLORS = (MODEL_COLOR, *UNDECLARED_COLORS)


@dataclass(frozen=True)
class Panel:
    """Describes a map of three or four elements.

    Attributes:
        symbols: at the corners.
        fractions: (point, corner).
        values: mixing enthalpies, meV/atom.
        errors: of these; None where none are known.
    """

    symbols: tuple[str, ...]
    fractions: Float[Array, "point corner"]
    values: Float[Array, "point"]
    errors: Float[Array, "point"] | None = None


def screen_figures(rows: Sequence[Ranked], mixing: Mixing, config: ScreenConfig) -> Iterator[NamedFigure]:
    """Yields the pictures that fit what was screened; of each composition only the lowest lattice is mapped."""
    source = mixing.model.schema.title
    lowest = [row for row in rows if row.lowest_lattice]
    yield NamedFigure(
        "ranked",
        "The first of the ranking",
        "Mixing enthalpy with its uncertainty (spread among members and error over structures together), and the free "
        "energy with the entropy of an ideal mixture.",
        partial(draw_ranked, rows[: config.top], config.temperature, config.lattices, source),
    )
    threes = [panel for three in combinations(config.symbols, 3) if (panel := map_of(lowest, three)) is not None]
    if threes:
        yield NamedFigure(
            "ternary",
            "Mixing enthalpy of three elements",
            "Dots are compositions that were computed; the lowest lattice of each. Beside it its uncertainty.",
            partial(draw_maps, most_mixing(threes), source),
        )
    if len(config.symbols) == 4 and (four := map_of(lowest, config.symbols)) is not None:
        yield NamedFigure(
            "quaternary",
            "Mixing enthalpy of four elements",
            "Each point is a composition; the lowest lattice of each. Beside it its uncertainty.",
            partial(draw_maps, [four], source),
        )
    together = share_together(lowest, config)
    cuts = [cut for three in combinations(config.symbols, 3) if (cut := cut_of(lowest, three, together)) is not None]
    if cuts:
        share = f"{100 * together / config.grid.steps:.3g}%"
        yield NamedFigure(
            "triples",
            f"Three elements that are {share} of an alloy",
            f"Of all alloys in which the three are together {share}, the lowest mixing enthalpy at each ratio of them.",
            partial(draw_maps, most_mixing(cuts), f"{source}; the three are {share}, the others at their best"),
        )
    fits = {lattice: fit for lattice in config.lattices if (fit := pair_fit(rows, mixing, lattice)) is not None}
    if fits:
        yield NamedFigure(
            "pairs",
            "Which pairs mix",
            "The enthalpy of equimolar pairs in the regular solution that fits all alloys of a lattice best.",
            partial(draw_pairs, fits, config.symbols, source),
        )


def map_of(rows: Sequence[Ranked], symbols: Sequence[str]) -> Panel | None:
    """Maps all alloys of some elements; None where no alloy has all of them."""
    mine = [row for row in rows if set(row.found.fractions) <= set(symbols)]
    if not any(len(row.found.fractions) == len(symbols) for row in mine):
        return None
    errors = np.array([MEV * row.error for row in mine])
    fractions, values = _points(mine, symbols)
    return Panel(tuple(symbols), fractions, values, errors if errors.any() else None)


def share_together(rows: Sequence[Ranked], config: ScreenConfig) -> int:
    """Returns the steps of three elements together that most alloys of more elements have."""
    counts: Counter[int] = Counter()
    for row in rows:
        if len(row.found.steps) > 3:
            counts.update(sum(three) for three in combinations(row.found.steps.values(), 3))
    return max(counts, key=lambda steps: (counts[steps], steps), default=config.grid.steps)


def cut_of(rows: Sequence[Ranked], three: Sequence[str], together: int) -> Panel | None:
    """Returns the lowest alloys at each ratio of three elements that have some steps together; None where there are
    none.
    """
    lowest: dict[tuple[int, ...], Ranked] = {}
    for row in rows:
        steps = tuple(row.found.steps.get(symbol, 0) for symbol in three)
        if min(steps) and sum(steps) == together and len(row.found.steps) > 3:
            best = lowest.setdefault(steps, row)
            if row.found.mixing_enthalpy < best.found.mixing_enthalpy:
                lowest[steps] = row
    if not lowest:
        return None
    values = np.array([MEV * row.found.mixing_enthalpy for row in lowest.values()])
    return Panel(tuple(three), np.array(list(lowest)) / together, values)


def _points(rows: Sequence[Ranked], symbols: Sequence[str]) -> tuple[Array, Array]:
    fractions = np.array([[row.found.fractions.get(symbol, 0.0) for symbol in symbols] for row in rows])
    return fractions, np.array([MEV * row.found.mixing_enthalpy for row in rows])


def most_mixing(panels: Sequence[Panel]) -> list[Panel]:
    """Returns the panels with the lowest means, if there are too many for a picture."""
    lowest = sorted(panels, key=lambda panel: panel.values.mean())[:MOST_TRIANGLES]
    return [panel for panel in panels if any(panel is kept for kept in lowest)]


def pair_fit(
    rows: Sequence[Ranked], mixing: Mixing, lattice: str
) -> tuple[Float[Array, "element element"], float] | None:
    """Returns the enthalpies of equimolar pairs in a regular solution, and the rms error of that, both meV/atom.

    The mixing enthalpy is taken for a sum of ``omega x x`` over pairs, and of what the lattice costs over elements.
    """
    symbols = mixing.config.symbols
    mine = [row for row in rows if row.found.lattice == lattice]
    fractions, values = _points(mine, symbols)
    pairs = list(combinations(range(len(symbols)), 2))
    products = np.stack([fractions[:, i] * fractions[:, j] for i, j in pairs], axis=1) if pairs else np.zeros((0, 0))
    if not pairs or np.linalg.matrix_rank(products) < len(pairs):
        return None
    left = values - MEV * fractions @ [mixing.above(symbol, lattice) for symbol in symbols]
    omega, *_ = np.linalg.lstsq(products, left, rcond=None)
    matrix = np.full((len(symbols), len(symbols)), np.nan)
    for (i, j), value in zip(pairs, omega, strict=True):
        matrix[i, j] = matrix[j, i] = value / 4
    return matrix, float(np.sqrt(np.mean((products @ omega - left) ** 2)))


def draw_ranked(rows: Sequence[Ranked], temperature: float, lattices: Sequence[str], source: str, path: Path) -> Path:
    """Draws bars of enthalpies with error bars, the first on top, and marks of free energies."""
    with suite_style():
        figure = new_figure(7.4, 1.5 + 0.26 * len(rows))
        add_titles(figure, source=source)
        axes = figure.subplots()
        places = np.arange(len(rows))
        for lattice, color in zip(lattices, LATTICE_COLORS, strict=False):
            mine = [position for position in range(len(rows)) if rows[position].found.lattice == lattice]
            if mine:
                values = [MEV * rows[position].found.mixing_enthalpy for position in mine]
                errors = [MEV * rows[position].error for position in mine]
                bars = {"ecolor": INK, "capsize": 2.5, "elinewidth": 1.1}
                axes.barh(
                    mine,
                    values,
                    0.68,
                    xerr=errors,
                    color=color,
                    alpha=0.85,
                    label=f"mixing enthalpy, {lattice}",
                    error_kw=bars,
                )
        free = [MEV * row.free_energy for row in rows]
        axes.plot(free, places, "D", color=INK, ms=4, mfc="white", label=f"free energy at {temperature:g} K", zorder=4)
        axes.set_yticks(places, [row.found.composition for row in rows])
        axes.invert_yaxis()
        axes.axvline(0, color=INK, lw=0.9)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="meV/atom", ylim=(len(rows) - 0.4, -0.6))
        figure.legend(loc="outside upper right", ncols=len(lattices) + 1)
        return save_png(figure, path)


def draw_maps(panels: Sequence[Panel], source: str, path: Path) -> Path:
    """Draws triangles or tetrahedra of enthalpies and of their uncertainties, side by side or one below the other."""
    three_d = len(panels[0].symbols) == 4
    draw = draw_tetrahedron if three_d else draw_triangle
    rows = [("mixing enthalpy", [panel.values for panel in panels])]
    errors = [panel.errors for panel in panels if panel.errors is not None]
    if len(errors) == len(panels):
        rows.append((UNCERTAIN, errors))
    columns = min(len(panels), 4 if len(panels) <= 8 else 5)
    lines = math.ceil(len(panels) / columns)
    size = 4.0 if len(panels) == 1 else 2.6
    across = len(panels) == 1
    with suite_style():
        figure = new_figure(
            size * (columns * len(rows) if across else columns) * 1.12 + 0.6,
            size * lines * (1 if across else len(rows)),
        )
        add_titles(figure, source=source)
        shape = (1, len(rows)) if across else (len(rows), 1)
        parts = figure.subfigures(*shape, squeeze=False).flat
        for part, (name, values) in zip(parts, rows, strict=True):
            cmap, norm = colors(np.concatenate(values), name)
            options = {"subplot_kw": {"projection": "3d"}} if three_d else {}
            grid = part.subplots(lines, columns, squeeze=False, **options)
            for axes in grid.flat[len(panels) :]:
                axes.set_axis_off()
            for axes, panel, shown in zip(grid.flat, panels, values, strict=False):
                mapped = draw(axes, panel.symbols, panel.fractions, shown, cmap=cmap, norm=norm)
            bar = part.colorbar(mapped, ax=grid, shrink=0.75, aspect=24, pad=0.02)
            bar.set_label(f"{name}, meV/atom")
            bar.outline.set_visible(False)
        return save_png(figure, path)


def draw_pairs(fits: dict[str, tuple[Array, float]], symbols: Sequence[str], source: str, path: Path) -> Path:
    """Draws a matrix for each lattice, blue where two elements attract each other."""
    with suite_style():
        size = 1.6 + 0.62 * len(symbols)
        figure = new_figure(size * len(fits) + 0.6, size)
        add_titles(figure, source=source)
        cmap, norm = colors(np.concatenate([matrix[np.isfinite(matrix)] for matrix, _ in fits.values()]), PAIR)
        for axes, (lattice, (matrix, rms)) in zip(
            figure.subplots(1, len(fits), squeeze=False)[0], fits.items(), strict=True
        ):
            mapped = axes.imshow(matrix, cmap=cmap, norm=norm)
            for i, j in combinations(range(len(symbols)), 2):
                share = norm(matrix[i, j])
                for cell in ((i, j), (j, i)):
                    color = "white" if not 0.2 < share < 0.8 else INK
                    axes.text(*cell, f"{matrix[i, j]:.0f}", ha="center", va="center", fontsize=9, color=color)
            axes.set_xticks(range(len(symbols)), symbols)
            axes.set_yticks(range(len(symbols)), symbols)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.grid(visible=False)
            axes.set_title(f"{lattice}, fits to {rms:.1f} meV/atom")
        bar = figure.colorbar(mapped, ax=figure.axes, shrink=0.8, aspect=24)
        bar.set_label(f"{PAIR}, meV/atom")
        bar.outline.set_visible(False)
        return save_png(figure, path)


def colors(values: Array, name: str) -> tuple[str, Any]:
    """Returns a color map and its range: blue below zero and red above where values have both signs, else one hue."""
    from matplotlib.colors import Normalize

    low, high = float(values.min()), float(values.max())
    if name == UNCERTAIN:
        return "YlGnBu", Normalize(0, high)
    if name == PAIR or min(-low, high) > LITTLE * max(-low, high):
        largest = max(abs(low), abs(high), 1e-9)
        return "RdBu_r", Normalize(-largest, largest)
    return "viridis", Normalize(low, high if high > low else low + 1)
