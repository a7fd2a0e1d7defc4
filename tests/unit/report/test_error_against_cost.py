"""Error against cost: means over variables, and a picture."""

from __future__ import annotations

import pytest

from sciml.domain.score import Metric, Score
from sciml.report.error_against_cost import draw_error_against_cost, means
from sciml.report.scores import Scores

VRMSE = Metric("vrmse")


def scores() -> Scores:
    rows = []
    for hours in (1.0, 2.0, 3.0, 4.0):
        for variable, value in (("a", 0.2), ("b", 0.4)):
            row = Score(variable, VRMSE, value * hours, "1", hours).to_row()
            others = {"persistence": 1.0, "solver": 0.1 * hours} | ({"partial": 0.5} if variable == "a" else {})
            rows.append({**row, "baseline": others})
    return Scores(rows)


def test_means_are_of_predictors_that_were_scored_on_all_variables():
    assert means(scores(), VRMSE, 2.0) == pytest.approx({"model": 0.6, "persistence": 1.0, "solver": 0.2})


def test_a_picture(tmp_path):
    costs = {
        "model": {"step_s": 0.02, "training_s": 300.0}, "persistence": {"step_s": 1e-7}, "solver": {"step_s": 0.005},
    }  # fmt: skip
    picture = draw_error_against_cost(scores(), VRMSE, costs, "some flows", tmp_path / "cost")
    assert picture.stat().st_size > 5000
