"""Values of compositions in triangles and tetrahedra, an element at each corner."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from sciml.report.style import INK, MUTED

Array = np.ndarray
HEIGHT = 3**0.5 / 2
TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, HEIGHT]])
TETRAHEDRON = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, HEIGHT, 0.0], [0.5, HEIGHT / 3, (2 / 3) ** 0.5]])
MARKS = (0.2, 0.4, 0.6, 0.8)


def draw_triangle(
    axes: Any,
    symbols: Sequence[str],
    fractions: Float[Array, "point 3"],
    values: Float[Array, "point"],
    *,
    cmap: str,
    norm: Any,
) -> Any:
    """Draws colors between the points of a ternary, the points as dots; the first element on the left, the third on
    top.

    Returns:
        What a color bar is made from.
    """
    points = fractions @ TRIANGLE
    look: dict[str, Any] = {"cmap": cmap, "norm": norm}
    if spans_plane(points):
        shown = axes.tripcolor(*points.T, values, shading="gouraud", zorder=1, **look)
        axes.scatter(*points.T, s=3, color=INK, alpha=0.35, linewidths=0, zorder=3)
    else:
        shown = axes.scatter(*points.T, c=values, s=40, zorder=3, **look)
    for mark in MARKS:
        for first, second, third in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            ends = np.zeros((2, 3))
            ends[:, first] = mark
            ends[0, second] = ends[1, third] = 1 - mark
            axes.plot(*(ends @ TRIANGLE).T, color=MUTED, lw=0.4, alpha=0.5, zorder=2)
    axes.plot(*TRIANGLE[[0, 1, 2, 0]].T, color=INK, lw=1.0, zorder=4)
    for symbol, corner, align in zip(symbols, TRIANGLE, ("right", "left", "center"), strict=True):
        away = 0.05 * (corner - TRIANGLE.mean(0)) / np.linalg.norm(corner - TRIANGLE.mean(0))
        vertical = "bottom" if align == "center" else "top"
        axes.text(*(corner + away), symbol, ha=align, va=vertical, fontweight="bold")
    axes.set(xlim=(-0.12, 1.12), ylim=(-0.12, HEIGHT + 0.12), aspect="equal")
    axes.set_axis_off()
    return shown


def draw_tetrahedron(
    axes: Any,
    symbols: Sequence[str],
    fractions: Float[Array, "point 4"],
    values: Float[Array, "point"],
    *,
    cmap: str,
    norm: Any,
) -> Any:
    """Draws the points of a quaternary in their colors, on axes with three dimensions."""
    for pair in combinations(range(4), 2):
        axes.plot(*TETRAHEDRON[list(pair)].T, color=MUTED, lw=0.9)
    shown = axes.scatter(
        *(fractions @ TETRAHEDRON).T, c=values, cmap=cmap, norm=norm, s=34, alpha=0.95, edgecolors=INK, linewidths=0.25
    )
    for symbol, corner in zip(symbols, TETRAHEDRON, strict=True):
        axes.text(*(corner + 0.1 * (corner - TETRAHEDRON.mean(0))), symbol, ha="center", va="center", fontweight="bold")
    axes.set_box_aspect((1, HEIGHT, (2 / 3) ** 0.5), zoom=1.25)
    axes.view_init(elev=14, azim=-38)
    axes.set_axis_off()
    return shown


def spans_plane(points: Float[Array, "point 2"]) -> bool:
    """Says whether points have triangles between them."""
    return len(points) >= 3 and np.linalg.matrix_rank(points - points.mean(0), tol=1e-6) == 2
