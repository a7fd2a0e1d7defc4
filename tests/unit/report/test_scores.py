"""What a report says in words follows from the numbers."""

from __future__ import annotations

import math

import pytest

from sciml.report.scores import (
    ScoreLine,
    badness,
    baselines_of,
    format_value,
    headline,
    in_order,
    lead_times,
    main_lead_time,
    primary_metric,
    score_lines,
)


def row(variable, value, lead=72.0, metric="rmse", **baseline):
    return {
        "variable": variable, "lead_time_h": lead, "metric": metric, "value": value, "unit": "K", "baseline": baseline,
    }  # fmt: skip


def line(variable, **values):
    return ScoreLine(variable, "rmse", "K", 72.0, values)


def test_best_and_gain():
    scored = line("t2m", model=1.5, persistence=3.0, climatology=2.0)
    assert scored.best == "model"
    assert scored.best_baseline == "climatology"
    assert scored.gain_over("climatology") == pytest.approx(0.25)
    assert line("t2m", model=2.0, ridge=1.0).gain_over("ridge") == pytest.approx(-1.0)
    assert line("t2m", model=2.0).best_baseline is None


@pytest.mark.parametrize(
    ("metric", "better", "worse"),
    [("rmse", 1.0, 2.0), ("acc", 0.9, 0.5), ("bias", -0.1, 0.3), ("spread_skill", 1.1, 0.5), ("rmse", 1.0, math.nan)],
)
def test_each_metric_knows_its_better_side(metric, better, worse):
    assert badness(metric, better) < badness(metric, worse)
    values = {"model": better, "persistence": worse}
    assert ScoreLine("t2m", metric, "", None, values).best == "model"


def test_headline_says_where_the_model_loses():
    lines = [
        line("t2m", model=1.0, persistence=2.0, climatology=3.0, ridge=0.9),
        line("z500", model=1.0, persistence=2.0, climatology=3.0, ridge=1.9),
    ]
    assert headline(lines) == (
        "72 h ahead the model beats persistence and climatology on all 2 variables "
        "and ridge on 1 of 2 variables (RMSE)."
    )
    worst = [line(name, model=4.0, persistence=2.0, climatology=3.0) for name in ("t2m", "z500")]
    assert headline(worst) == (
        "72 h ahead the model does not beat persistence or climatology on any of 2 variables (RMSE)."
    )
    one = [line("t2m", model=1.0, persistence=2.0)]
    assert headline(one) == "72 h ahead the model beats persistence on 1 variable (RMSE)."
    mixed = [line("t2m", model=2.5, persistence=2.0, climatology=3.0)]
    assert "climatology on 1 variable" in headline(mixed)
    assert "persistence on none of 1 variable" in headline(mixed)
    assert "Nothing" in headline([])
    assert "no baseline" in headline([line("t2m", model=1.0)])


def test_a_tie_is_no_victory():
    assert "does not beat persistence" in headline([line("t2m", model=2.0, persistence=2.0)])


def test_rows_are_found():
    rows = [row("t2m", 1.0, lead=hours, ridge=2.0, persistence=None) for hours in (24.0, 72.0, 120.0)]
    rows += [row("t2m", 0.9, metric="acc", persistence=0.5)]
    assert lead_times(rows, "rmse") == [24.0, 72.0, 120.0]
    assert main_lead_time(rows) == 72.0
    assert main_lead_time(rows[:1]) == 24.0
    assert main_lead_time([row("energy", 1.0, lead=None)]) is None
    assert primary_metric(rows) == "rmse"
    assert primary_metric([]) is None
    assert baselines_of(rows) == ["persistence", "ridge"]
    assert score_lines(rows, "rmse", 72.0)[0].values == {"model": 1.0, "ridge": 2.0}


def test_order_is_that_of_the_suite_with_strangers_last():
    mixed = ["zebra", "ridge", "climatology", "persistence"]
    assert in_order(mixed) == ["persistence", "climatology", "ridge", "zebra"]


@pytest.mark.parametrize(
    ("value", "text"), [(2.0, "2.00"), (1075.4, "1075"), (0.08712, "0.0871"), (240.2, "240"), (-0.5, "-0.500")]
)
def test_three_digits(value, text):
    assert format_value(value) == text
