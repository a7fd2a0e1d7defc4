"""Defines how predictions are judged: metrics, scores, and the baselines that a model is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from typing_extensions import TypedDict

Better = Literal["lower", "higher", "nearer", "neither"]


def _mean_itself(mean: float) -> float:
    return mean


@dataclass(frozen=True)
class Metric:
    """Measures how good predictions are; two are equal where their names are.

    Attributes:
        name: key in ``scores.json``, e.g. ``rmse``.
        label: name in headlines, tables and pictures, e.g. ``RMSE``; by default the name in capitals.
        better: which values are better; ``nearer`` to the perfect one, from both sides, as of a bias; ``neither`` where
            a value alone does not judge, as the spread of an ensemble.
        perfect: the score of a perfect prediction; None where scores have no such bound, as a log-likelihood has none.
            Shares of an error that a model takes away then mean nothing, only which one is better.
        unit: of the scores; None where it is that of the variable.
        reduce: turns the mean over the cases of all ranks into the score, e.g. ``math.sqrt`` for a root mean square.
        judges_spread: whether the uncertainty of a prediction is judged, and not its value alone.
    """

    name: str
    label: str = field(default="", compare=False)
    better: Better = field(default="lower", compare=False)
    perfect: float | None = field(default=0.0, compare=False)
    unit: str | None = field(default=None, compare=False)
    reduce: Callable[[float], float] = field(default=_mean_itself, compare=False)
    judges_spread: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if self.better == "nearer" and self.perfect is None:
            raise ValueError(f"{self.name}: nearer to what is better? give the perfect score")
        if not self.label:
            object.__setattr__(self, "label", self.name.upper())

    def shortfall(self, value: float | None) -> float:
        """Returns a number that falls as a score gets better: 0 if perfect, infinite if missing."""
        if value is None or math.isnan(value):
            return math.inf
        distance = value - (self.perfect or 0.0)
        return {"lower": distance, "higher": -distance, "nearer": abs(distance), "neither": 0.0}[self.better]

    def gain(self, value: float | None, reference: float | None) -> float:
        """Returns the share of a reference's shortfall that a score takes away; negative where it is worse.

        It is nan where no share can be told: the reference is perfect or missing, or the metric has no perfect score.
        """
        of_reference = self.shortfall(reference)
        if self.perfect is None or not of_reference or math.isinf(of_reference):
            return math.nan
        return 1 - self.shortfall(value) / of_reference

    @property
    def direction(self) -> str:
        """Says in words which values are better: ``lower is better``, ``higher is better`` or ``nearer to 1 is
        better``.
        """
        return f"nearer to {self.perfect:g} is better" if self.better == "nearer" else f"{self.better} is better"

    def to_row(self) -> dict[str, Any]:
        """Returns what rows of ``scores.json`` say of the metric; read back by :meth:`from_row`."""
        row = {"metric": self.name, "label": self.label, "better": self.better, "perfect": self.perfect}
        return {**row, "judges_spread": True} if self.judges_spread else row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Metric:
        """Returns the metric of a row; one that says no more than its name is an error, and lower is better."""
        known = {key: row[key] for key in ("label", "better", "perfect", "judges_spread") if key in row}
        return cls(row["metric"], **known)


class ScoreRow(TypedDict):
    """Says what every row of ``scores.json`` must have; :meth:`Score.to_row` writes more, and evaluations add
    the baselines.
    """

    variable: str
    metric: str
    value: float | None


@dataclass(frozen=True)
class Score:
    """Holds one number that judges one predictor.

    Attributes:
        cases: how many were averaged; None where it was not counted.
        interval: ends of its 95% interval, over cases that do not depend on one another; None where it is not known.
        curve: what the number sums up, by name of an axis, e.g. of wavenumbers or ranks, and of what is on it.
    """

    variable: str
    metric: Metric
    value: float
    unit: str
    lead_time_h: float | None = None
    cases: int | None = None
    interval: tuple[float, float] | None = None
    curve: Mapping[str, tuple[float, ...]] | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, str, float | None]:
        """Returns what makes two scores of different predictors comparable."""
        return (self.variable, self.metric.name, self.lead_time_h)

    def to_row(self) -> dict[str, Any]:
        """Returns a row of ``scores.json``, without baselines."""
        row = {
            "variable": self.variable,
            "lead_time_h": self.lead_time_h,
            **self.metric.to_row(),
            "value": self.value,
            "unit": self.unit,
            **({} if self.cases is None else {"cases": self.cases}),
            **({} if self.interval is None else {"interval": list(self.interval)}),
        }
        if self.curve is None:
            return row
        return {**row, "curve": {name: [float(f"{x:.6g}") for x in values] for name, values in self.curve.items()}}


@dataclass(frozen=True)
class Baseline:
    """Describes a simple predictor that a model is compared with, and how pictures show it.

    Attributes:
        name: key in ``scores.json``; a reference model of a configuration may have one, too.
        color: of its marks and lines.
        marker: as matplotlib names it.
    """

    name: str
    color: str
    marker: str = "s"
