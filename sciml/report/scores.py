"""Reading the rows of ``scores.json``: which lead time matters, who is best, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sciml.core.duration import format_hours
from sciml.report.style import COLORS, MODEL

Rows = Sequence[Mapping[str, Any]]

PRIMARY_METRICS = ("vrmse", "rmse", "mae")
HIGHER_IS_BETTER = frozenset({"acc", "r2", "correlation", "accuracy"})
MAIN_LEAD_H = 72.0
"""The lead time at which the field compares medium-range forecasts; headlines take it where it was scored."""

BEST_AT_ZERO = frozenset({"bias"})
BEST_AT_ONE = frozenset({"spread_skill"})


@dataclass(frozen=True)
class ScoreLine:
    """One variable at one lead time: the model beside its baselines.

    Attributes:
        values: by predictor, ``"model"`` first; a baseline that was not scored is missing.
    """

    variable: str
    metric: str
    unit: str
    lead_time_h: float | None
    values: Mapping[str, float]

    @property
    def best(self) -> str:
        """The predictor with the best value."""
        return min(self.values, key=lambda name: badness(self.metric, self.values[name]))

    @property
    def best_baseline(self) -> str | None:
        """The strongest baseline; None where there is none."""
        names = [name for name in self.values if name != MODEL]
        return min(names, key=lambda name: badness(self.metric, self.values[name])) if names else None

    def gain_over(self, baseline: str) -> float:
        """Share of a baseline's badness that the model takes away; negative where the model is worse."""
        reference = badness(self.metric, self.values[baseline])
        return 1 - badness(self.metric, self.values[MODEL]) / reference if reference else math.nan


def badness(metric: str, value: float) -> float:
    """A number that falls as a score gets better; infinite for a missing value."""
    if value is None or math.isnan(value):
        return math.inf
    if metric in HIGHER_IS_BETTER:
        return 1 - value
    if metric in BEST_AT_ZERO:
        return abs(value)
    return abs(value - 1) if metric in BEST_AT_ONE else value


def score_lines(scores: Rows, metric: str, lead_time_h: float | None) -> list[ScoreLine]:
    """The lines of one metric and lead time, in the order of the file."""
    lines = []
    for row in scores:
        if row["metric"] == metric and row.get("lead_time_h") == lead_time_h:
            baselines = {k: v for k, v in (row.get("baseline") or {}).items() if v is not None}
            values = {MODEL: row["value"], **{name: baselines[name] for name in in_order(baselines)}}
            lines.append(ScoreLine(row["variable"], metric, row.get("unit", ""), lead_time_h, values))
    return lines


def primary_metric(scores: Rows) -> str | None:
    """The metric a headline speaks of: RMSE or MAE, whichever comes first, else the first that was scored."""
    metrics = list(dict.fromkeys(row["metric"] for row in scores))
    return next((m for m in metrics if m in PRIMARY_METRICS), metrics[0] if metrics else None)


def lead_times(scores: Rows, metric: str | None = None) -> list[float]:
    """The lead times that were scored, in hours and increasing."""
    chosen = (row for row in scores if metric in (None, row["metric"]))
    return sorted({row["lead_time_h"] for row in chosen if row.get("lead_time_h") is not None})


def main_lead_time(scores: Rows) -> float | None:
    """The lead time of headlines: 72 h where it was scored, else the longest; None for scores without lead times."""
    known = lead_times(scores)
    if not known:
        return None
    return MAIN_LEAD_H if MAIN_LEAD_H in known else known[-1]


def baselines_of(scores: Rows) -> list[str]:
    """All baselines that were scored, in the order of the suite."""
    return in_order({name for row in scores for name in (row.get("baseline") or {})})


def in_order(predictors: Iterable[str]) -> list[str]:
    """Predictors in the order in which every table and legend of the suite shows them."""
    known = list(COLORS)
    return sorted(predictors, key=lambda name: (known.index(name) if name in known else len(known), name))


def format_value(value: float) -> str:
    """Three significant digits: ``2.00``, ``0.0871``, ``1075``, ``1.20e-05``."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def headline(lines: Sequence[ScoreLine]) -> str:
    """One sentence that says which baselines the model beats, and on how many variables.

    It is computed from the scores alone, and says as plainly where the model loses.
    """
    if not lines:
        return "Nothing has been scored yet."
    names = in_order({name for line in lines for name in line.values if name != MODEL})
    lead, metric = lines[0].lead_time_h, lines[0].metric.upper()
    subject = "The model" if lead is None else f"{format_hours(lead)} ahead the model"
    if not names:
        return f"{subject} was scored by {metric}; no baseline was scored beside it."
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_how_often(lines, name), []).append(name.replace("_", " "))
    clauses = [f"{_join(group)} {how}" for how, group in groups.items()]
    if len(groups) == 1 and "on none" in next(iter(groups)):
        how, group = next(iter(groups.items()))
        return f"{subject} does not beat {_join(group, 'or')} {how.replace('none', 'any')} ({metric})."
    return f"{subject} beats {_join(clauses)} ({metric})."


def wins_over(lines: Sequence[ScoreLine], baseline: str) -> tuple[int, int]:
    """On how many lines the model is better than a baseline, and how many lines have both."""
    gains = [line.gain_over(baseline) for line in lines if baseline in line.values]
    return sum(gain > 0 for gain in gains), len(gains)


def _how_often(lines: Sequence[ScoreLine], baseline: str) -> str:
    wins, number = wins_over(lines, baseline)
    variables = f"{number} variable{'s' * (number != 1)}"
    if wins in (0, number):
        return f"on {'all' if wins else 'none of'} {variables}" if number > 1 or not wins else f"on {variables}"
    return f"on {wins} of {variables}"


def _join(words: Sequence[str], conjunction: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {conjunction} {words[-1]}"
