"""Draws how good forecasts are: beside the baselines, and against lead time."""

from __future__ import annotations

from pathlib import Path

from domains.climate.data.variables import channel_title, channel_unit
from domains.climate.forecast.baselines import CLIMATOLOGY, PERSISTENCE
from domains.climate.forecast.example import SHOWN_CHANNELS, choose
from domains.climate.forecast.metrics import ACC, RMSE
from sciml.report.bars import draw_bars
from sciml.report.scores import Scores
from sciml.report.skill import draw_scores_by_lead_time
from sciml.report.style import label_of, pretty_unit, style_of

REFERENCES = (CLIMATOLOGY.name, PERSISTENCE.name)
MOST_CURVES = 4


def draw_skill_beside_baselines(scores: Scores, lead_hours: float | None, source: str, path: Path) -> Path:
    """Draws a bar of the model's RMSE per variable in units of climatology's, and a mark for each baseline."""
    lines = scores.lines(RMSE, lead_hours)
    reference = next(name for name in (*REFERENCES, *scores.predictors) if all(name in li.values for li in lines))
    when = "" if lead_hours is None else f" {lead_hours:g} h ahead"
    label = f"RMSE, in units of {label_of(reference)}'s (left is better)"
    color = style_of(reference, scores.baselines).color
    panels = {f"Error{when} beside the baselines": [line.in_errors_of(reference) for line in lines]}
    return draw_bars(panels, label, scores, source, path, level_color=color)


def draw_skill_by_lead_time(scores: Scores, source: str, path: Path) -> Path:
    """Draws RMSE above, ACC below, against lead time, for up to four variables."""
    channels = dict.fromkeys(row["variable"] for row in scores.rows if row["metric"] == RMSE.name)
    names = choose(tuple(channels), SHOWN_CHANNELS, MOST_CURVES)
    titles = {name: f"{channel_title(name)}\n{name}, {pretty_unit(channel_unit(name))}".rstrip(", ") for name in names}
    return draw_scores_by_lead_time(
        scores,
        titles,
        [metric for metric in (RMSE, ACC) if len(scores.lead_times(metric)) > 1],
        source,
        path,
        hidden={(ACC, CLIMATOLOGY)},  # its anomaly is zero: the correlation says nothing
    )
