"""One look for all pictures of the suite: type, lines, hues, and how the model and each baseline are shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sciml.core.files import atomic_file
from sciml.domain.score import Baseline

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#1b2733"
MUTED = "#66727f"
GRID = "#e3e7eb"
PAPER = "#ffffff"
MODEL = "model"
INTERVAL = "95% interval"
DPI = 160
"""Says how fine written pictures are, in pixels an inch."""
PIXELS_PER_INCH = 110
"""Says how wide an inch of a picture is on the screen."""

# Okabe and Ito's hues, adjusted to one lightness family: told apart with any color vision and in gray print.
BLUE, GRAY, AMBER, RUST, PLUM = "#0b5fa5", "#8a949e", "#e0a100", "#c65d00", "#b2478f"
GREEN, ORANGE, SKY, VIOLET, RED, OLIVE = "#12876a", "#d9822b", "#5bb0e0", "#7a5cc7", "#a33b3b", "#5d6b2f"
MODEL_COLOR = BLUE
UNDECLARED_COLORS = (SKY, VIOLET, RED, OLIVE)
UNDECLARED_MARKER = "P"

RC: dict[str, Any] = {
    "figure.facecolor": PAPER,
    "figure.dpi": 120,
    "savefig.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.9,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "image.interpolation": "nearest",
    "mathtext.default": "regular",
}


@contextlib.contextmanager
def suite_style() -> Iterator[None]:
    """Draws in the suite's style inside the block, and leaves matplotlib's settings as they were."""
    import matplotlib as mpl

    with mpl.rc_context(RC):  # type: ignore[arg-type]  # newer stubs list every key
        yield


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure in inches, free of pyplot's global state, laid out so that nothing is cut."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def add_titles(figure: Figure, title: str = "", source: str = "") -> Any:
    """Writes a heading above and the small name of the data below; the axes keep clear of both.

    Returns:
        The heading, for animations that change it.
    """
    height = figure.get_figheight()
    above = (0.5 * bool(title) + 0.24 * title.count("\n")) / height
    below = 0.28 * bool(source) / height
    figure.get_layout_engine().set(rect=(0, below, 1, 1 - above - below))  # type: ignore[union-attr,call-arg]
    if source:
        figure.text(0.5, 0.09 / height, source, ha="center", va="bottom", fontsize=8.5, color=MUTED)
    return figure.text(0.5, 1 - 0.14 / height, title, ha="center", va="top", fontsize=13.5, fontweight="bold")


def label_plainly(axis: Axis) -> None:
    """Labels a logarithmic axis with plain numbers, at powers of ten and at twice and five times these."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "25" else "")
    axis.set_tick_params(which="both", length=3, pad=4)  # labels of both kinds on one line


def write_literally(figure: Figure) -> None:
    """Shows the texts of a figure as they are: a dollar sign in the name of a file or variable begins no formula."""
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter, ScalarFormatter

    formulas: set[Any] = set()  # powers of ten on axes with numbers
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        formulas.add(axis.get_offset_text())
        for formatter, labels in (  # reading labels makes those that are not there yet
            (axis.get_major_formatter(), axis.get_majorticklabels()),
            (axis.get_minor_formatter(), axis.get_minorticklabels()),
        ):
            formulas |= {*(labels if isinstance(formatter, (ScalarFormatter, LogFormatter)) else ())}
    for text in figure.findobj(Text):
        if text not in formulas:
            text.set_parse_math(False)


def save_png(figure: Figure, path: Path, dpi: int = DPI) -> Path:
    """Writes a figure as PNG next to the given stem, whole or not at all."""
    written = path.with_suffix(".png")
    write_literally(figure)
    with atomic_file(written) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return written


def plain_ticks(axis: Axis, low: float, high: float) -> None:
    """Puts round numbers on a logarithmic axis: powers of ten where many are spanned, 1, 2, 5 of each where few are, or
    closer where less than that is.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    if high / low > 6:
        digits = (1,) if high / low > 2e3 else (1, 2, 5)
        steps = [digit * 10.0**power for power in range(-12, 13) for digit in digits]
    else:
        steps = list(MaxNLocator(5).tick_values(low, high))
    axis.set_major_locator(FixedLocator([step for step in steps if low <= step <= high]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_locator(NullLocator())


def pixels_on_screen(png: bytes) -> int:
    """Returns how wide a PNG that :func:`save_png` has written is to be shown, so that all text has one size."""
    return round(PIXELS_PER_INCH * int.from_bytes(png[16:20], "big") / DPI)


class PredictorStyle(NamedTuple):
    """Says how pictures show the model or a baseline."""

    color: str
    marker: str


def style_of(predictor: str, baselines: Sequence[Baseline]) -> PredictorStyle:
    """Returns the color and the marker of the model or a baseline, the same in every picture and every run.

    Args:
        baselines: of the domain; a predictor that is not among them gets a color by its name.
    """
    if predictor == MODEL:
        return PredictorStyle(MODEL_COLOR, "o")
    declared = {baseline.name: PredictorStyle(baseline.color, baseline.marker) for baseline in baselines}
    other = UNDECLARED_COLORS[sum(predictor.encode()) % len(UNDECLARED_COLORS)]
    return declared.get(predictor, PredictorStyle(other, UNDECLARED_MARKER))


def label_of(predictor: str) -> str:
    """Returns how the model or a baseline is called in a legend."""
    return predictor.replace("_", " ")


def pretty_unit(unit: str) -> str:
    """Returns a unit as matplotlib sets it: ``m**2 s**-2`` becomes m² s⁻²; a pure number has none."""
    if unit in ("", "1", "dimensionless"):
        return ""
    superscript = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
    words = []
    for word in unit.replace("**", "^").split():
        base, _, power = word.partition("^")
        if not power and len(word) > 1 and (word[-1].isdigit()):
            base = word.rstrip("-0123456789")
            power = word[len(base) :]
        words.append(base + power.translate(superscript))
    return " ".join(words)
