"""Reads the curves that stand behind single numbers in the scores of a run."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from sciml.domain.score import Metric
from sciml.report.scores import Scores

Curve = dict[str, Float[np.ndarray, "point"]]


def curves_of(scores: Scores, metric: Metric) -> dict[str, dict[float, Curve]]:
    """Returns the model's curves of a metric by variable and lead time in hours."""
    found: dict[str, dict[float, Curve]] = {}
    for row in scores.rows:
        if row["metric"] == metric.name and row.get("curve"):
            curve = {name: np.asarray(values, dtype=np.float64) for name, values in row["curve"].items()}
            found.setdefault(row["variable"], {})[float(row["lead_time_h"])] = curve
    return found
