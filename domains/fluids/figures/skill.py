"""Draws how good forecasts of flows are: VRMSE beside the baselines, and against lead time."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from domains.fluids.data.schema import FluidsSchema
from domains.fluids.forecast.metrics import VRMSE
from sciml.report.bars import draw_bars
from sciml.report.scores import Scores
from sciml.report.skill import draw_scores_by_lead_time

MOST_CURVES = 4


def draw_skill(scores: Scores, schema: FluidsSchema, path: Path) -> Path:
    """Draws a panel for each scored lead time: bars of the model's VRMSE, and a mark for each baseline."""
    panels = {f"{schema.time_text(hours)} ahead": scores.lines(VRMSE, hours) for hours in scores.lead_times(VRMSE)}
    return draw_bars(panels, "VRMSE (lower is better)", scores, schema.title, path)


def draw_skill_by_lead_time(scores: Scores, schema: FluidsSchema, path: Path) -> Path:
    """Draws VRMSE against lead time, for up to four variables."""
    titles = {name: name for name in _telling(scores)[:MOST_CURVES]}
    return draw_scores_by_lead_time(
        scores, titles, [VRMSE], schema.title, path, levels={VRMSE: 1.0}, unit=schema.time_unit
    )


def _telling(scores: Scores) -> list[str]:
    """Returns the scored variables, one of each data set in turn, potential temperature first."""
    by_data_set: dict[str, list[str]] = {}
    for name in dict.fromkeys(row["variable"] for row in scores.rows if row["metric"] == VRMSE.name):
        by_data_set.setdefault(name.rpartition(".")[0], []).append(name)
    ranked = [sorted(names, key=lambda name: name.rpartition(".")[2] != "theta") for names in by_data_set.values()]
    return [name for turn in zip_longest(*ranked) for name in turn if name is not None]
