"""One legend of all panels of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sciml.report.style import MODEL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND_INCHES = 1.6
"""Approximate width of an entry of a legend."""


def draw_legend(figure: Figure) -> None:
    """Draws one legend of all panels above them, in as many columns as the figure is wide."""
    handles, labels = legend_entries(figure)
    columns = min(len(labels), int(figure.get_figwidth() / LEGEND_INCHES))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, columnspacing=1.3, handletextpad=0.5)


def legend_entries(figure: Figure) -> tuple[list[Any], list[str]]:
    """Returns handles and labels of all panels, each label once, the model first."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    labels = sorted(entries, key=lambda label: label != MODEL)
    return [entries[label] for label in labels], labels
