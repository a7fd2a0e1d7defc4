"""Reading the rows of ``scores.json``: which lead time matters, who is best, and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from sciml.core.duration import as_typed, format_hours
from sciml.domain.forecasting import Forecasts
from sciml.domain.protocol import Domain, RunResult
from sciml.domain.score import Baseline, Metric
from sciml.report.style import MODEL, label_of

Rows = Sequence[Mapping[str, Any]]
TimeText = Callable[[float], str]
"""Writes a lead time of some hours."""

LOG_SCALE_ABOVE = 50.0
"""Ratio of the largest to the smallest score from which a linear scale shows only the largest."""


@dataclass(frozen=True)
class ScoreLine:
    """Holds one variable at one lead time: the model beside its baselines.

    Attributes:
        values: by predictor, ``"model"`` first; a baseline that was not scored is missing.
        interval: ends of the model's 95% interval; None where it is not known.
    """

    variable: str
    metric: Metric
    unit: str
    lead_time_h: float | None
    values: Mapping[str, float]
    interval: tuple[float, float] | None = None

    @property
    def best(self) -> str:
        """Returns the predictor with the best value."""
        return min(self.values, key=lambda name: self.metric.shortfall(self.values[name]))

    @property
    def best_baseline(self) -> str | None:
        """Returns the strongest baseline; None where there is none."""
        names = [name for name in self.values if name != MODEL]
        return min(names, key=lambda name: self.metric.shortfall(self.values[name])) if names else None

    def gain_over(self, baseline: str) -> float:
        """Returns the share of a baseline's error that the model takes away, see :meth:`Metric.gain`."""
        return self.metric.gain(self.values[MODEL], self.values[baseline])

    def in_errors_of(self, reference: str) -> ScoreLine:
        """Returns the line in units of one predictor's error, as if that error were known exactly."""
        scale = self.values[reference]
        interval = None if self.interval is None else (self.interval[0] / scale, self.interval[1] / scale)
        values = {name: value / scale for name, value in self.values.items()}
        return replace(self, unit="1", values=values, interval=interval)

    def outcome_against(self, baseline: str) -> int:
        """Returns 1 where the model is better than a baseline, -1 where it is worse, 0 where they are equal."""
        model, other = (self.metric.shortfall(self.values[name]) for name in (MODEL, baseline))
        return (model < other) - (model > other)


@dataclass(frozen=True)
class Scores:
    """Holds the rows of a ``scores.json``, with what the domain says of baselines and lead times.

    Attributes:
        baselines: of the domain, in the order of tables and legends.
        headline_lead_h: lead time that headlines speak of where it was scored; None takes the longest.
        time_text: writes a lead time of some hours.
    """

    rows: Rows
    baselines: Sequence[Baseline] = ()
    headline_lead_h: float | None = None
    time_text: TimeText = format_hours

    @classmethod
    def of(cls, result: RunResult) -> Scores:
        """Returns the scores of a run."""
        return cls(result.scores, result.baselines, result.headline_lead_h, result.time_text)

    @classmethod
    def in_domain(cls, rows: Rows, domain: Domain, time_text: TimeText = format_hours) -> Scores:
        """Returns scores of a model of a domain."""
        return cls(rows, domain.baselines, headline_lead_of(domain), time_text)

    @property
    def metrics(self) -> list[Metric]:
        """Returns the metrics that were scored, in the order of the file; the first is that of headlines."""
        return list(dict.fromkeys(Metric.from_row(row) for row in self.rows))

    @property
    def primary_metric(self) -> Metric | None:
        """Returns the metric of headlines; None where nothing was scored."""
        return self.metrics[0] if self.metrics else None

    def has(self, metric: Metric) -> bool:
        """Returns whether a metric was scored."""
        return metric in self.metrics

    def lead_times(self, metric: Metric | None = None) -> list[float]:
        """Returns the lead times that were scored, in hours and increasing."""
        chosen = (row for row in self.rows if metric is None or row["metric"] == metric.name)
        return sorted({row["lead_time_h"] for row in chosen if row.get("lead_time_h") is not None})

    @property
    def main_lead_time(self) -> float | None:
        """Returns the lead time of headlines: the domain's where it was scored, else the longest; None without
        lead times.
        """
        known = self.lead_times()
        if not known:
            return None
        return self.headline_lead_h if self.headline_lead_h in known else known[-1]

    @property
    def variables(self) -> list[str]:
        """Returns the variables that were scored, in the order of the file."""
        return list(dict.fromkeys(row["variable"] for row in self.rows))

    @property
    def cases(self) -> str:
        """Says how many cases were scored: ``292 cases``; empty where it was not counted."""
        counts = [row["cases"] for row in self.rows if row.get("cases")]
        return f"{max(counts):,} case{'s' * (max(counts) > 1)}" if counts else ""

    def with_cases(self, source: str) -> str:
        """Returns what the data are, with how many cases were scored."""
        return " \u00b7 ".join(filter(None, (source, self.cases)))

    @property
    def predictors(self) -> list[str]:
        """Returns the baselines that were scored, in the order of tables and legends."""
        return in_order({name for row in self.rows for name in (row.get("baseline") or {})}, self.baselines)

    def lines(self, metric: Metric, lead_time_h: float | None) -> list[ScoreLine]:
        """Returns the lines of one metric and lead time, in the order of the file."""
        lines = []
        for row in self.rows:
            if row["metric"] == metric.name and row.get("lead_time_h") == lead_time_h:
                others = {name: value for name, value in (row.get("baseline") or {}).items() if value is not None}
                values = {MODEL: row["value"], **{name: others[name] for name in in_order(others, self.baselines)}}
                low_high = row.get("interval")
                interval = None if low_high is None else (low_high[0], low_high[1])
                lines.append(ScoreLine(row["variable"], metric, row.get("unit", ""), lead_time_h, values, interval))
        return lines

    @property
    def main_lines(self) -> list[ScoreLine]:
        """Returns the lines that headlines use: the primary metric at the main lead time. Variables that were not
        scored there, as those of data sets with frames at other times, are judged at their own longest.
        """
        if self.primary_metric is None:
            return []
        main, scored = self.main_lead_time, dict[str, list[float | None]]()
        for row in (row for row in self.rows if row["metric"] == self.primary_metric.name):
            scored.setdefault(row["variable"], []).append(row.get("lead_time_h"))
        chosen = {
            name: main if main in leads else max(leads, key=lambda lead: lead or 0.0) for name, leads in scored.items()
        }
        found = {lead: self.lines(self.primary_metric, lead) for lead in set(chosen.values())}
        return [line for name, lead in chosen.items() for line in found[lead] if line.variable == name]


def headline_lead_of(domain: Domain) -> float | None:
    """Returns the lead time in hours that a domain's headlines use; None takes the longest that was scored."""
    return domain.headline_lead_h if isinstance(domain, Forecasts) else None


def time_text_of(domain: Domain | Forecasts, schema: Mapping[str, Any]) -> TimeText:
    """Returns what writes lead times of data that a schema describes."""
    return partial(domain.time_text, schema) if isinstance(domain, Forecasts) else format_hours


def lead_as_typed(hours: float, time_text: TimeText) -> str:
    """Returns a lead time as commands take it: ``72h``, or a bare number where pictures write it in a unit of the
    data.
    """
    return as_typed(hours) if time_text(hours) == format_hours(hours) else f"{3600 * hours:.12g}"


def in_order(predictors: Iterable[str], baselines: Sequence[Baseline]) -> list[str]:
    """Returns predictors in the order in which tables and legends show them: as declared, then by name."""
    known = [baseline.name for baseline in baselines]
    return sorted(predictors, key=lambda name: (known.index(name) if name in known else len(known), name))


def format_value(value: float) -> str:
    """Returns three significant digits: ``2.00``, ``0.0871``, ``1075``, ``1.20e-05``."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def headline(lines: Sequence[ScoreLine], time_text: TimeText = format_hours) -> str:
    """Returns one sentence that says which baselines the model is better or worse than, and on how many variables.

    It is computed from the scores alone, and says as plainly where the model loses.

    Args:
        time_text: writes a lead time of some hours.
    """
    if not lines:
        return "Nothing has been scored yet."
    leads, subject = {line.lead_time_h for line in lines}, sentence(lines[0].metric.label)
    if len(leads) > 1:
        subject += " at the longest lead time of each variable"
    elif (lead := lines[0].lead_time_h) is not None:
        subject += f" {time_text(lead)} ahead"
    names = list(dict.fromkeys(name for line in lines for name in line.values if name != MODEL))
    if not names:
        return f"{subject}: no baseline was scored beside the model."
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        groups.setdefault(_standing(lines, name), []).append(label_of(name))
    clauses = [f"{how} {_join(group)}{where}" for (how, where), group in groups.items()]
    return f"{subject}: {', '.join(clauses)}."


def sentence(text: str) -> str:
    """Returns a text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def wins_over(lines: Sequence[ScoreLine], baseline: str) -> tuple[int, int]:
    """Returns on how many lines the model is better than a baseline, and how many lines have both."""
    outcomes = [line.outcome_against(baseline) for line in lines if baseline in line.values]
    return outcomes.count(1), len(outcomes)


def _standing(lines: Sequence[ScoreLine], baseline: str) -> tuple[str, str]:
    """Returns how the model stands against a baseline, and on which variables: ``better than``, `` on 3 of 5 ...``."""
    outcomes = [line.outcome_against(baseline) for line in lines if baseline in line.values]
    number, wins, losses = len(outcomes), outcomes.count(1), outcomes.count(-1)
    how = "better than" if wins else "worse than" if losses == number else "no better than"
    if len(lines) == 1:
        return how, ""
    return how, f" on {wins} of {number} variables" if 0 < wins < number else f" on all {number} variables"


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def as_number(value: float | None) -> float:
    """Returns a score, nan for one that is missing."""
    return np.nan if value is None else float(value)


def needs_log(values: Sequence[float]) -> bool:
    """Says whether scores differ so much that a linear scale would show only the largest."""
    known = [value for value in map(as_number, values) if np.isfinite(value) and value > 0]
    return bool(known) and max(known) / min(known) > LOG_SCALE_ABOVE
