"""What a report says in words follows from the numbers."""

from __future__ import annotations

import math

import pytest

from sciml.core.duration import format_hours
from sciml.domain.score import Baseline, Metric
from sciml.report.model_card import score_table
from sciml.report.scores import ScoreLine, Scores, format_value, headline, in_order, lead_as_typed
from sciml.report.style import UNDECLARED_COLORS, style_of

RMSE = Metric("rmse")
ACC = Metric("acc", "anomaly correlation", better="higher", perfect=1.0)
BIAS = Metric("bias", better="nearer")
RATIO = Metric("spread_skill", better="nearer", perfect=1.0)
LIKELIHOOD = Metric("log_likelihood", "log-likelihood", better="higher", perfect=None)
SPREAD = Metric("spread", better="neither")
BASELINES = (Baseline("persistence", "#123456", "s"), Baseline("climatology", "#654321", "D"), Baseline("ridge", "red"))


def row(variable, value, lead=72.0, metric=RMSE, **baseline):
    return {
        "variable": variable, "lead_time_h": lead, **metric.to_row(), "value": value, "unit": "K", "baseline": baseline,
    }  # fmt: skip


def line(variable, metric=RMSE, lead=72.0, **values):
    return ScoreLine(variable, metric, "K", lead, values)


def test_best_and_gain():
    scored = line("t2m", model=1.5, persistence=3.0, climatology=2.0)
    assert scored.best == "model"
    assert scored.best_baseline == "climatology"
    assert scored.gain_over("climatology") == pytest.approx(0.25)
    assert line("t2m", model=2.0, ridge=1.0).gain_over("ridge") == pytest.approx(-1.0)
    assert line("t2m", model=2.0).best_baseline is None


@pytest.mark.parametrize(
    ("metric", "better", "worse"),
    [
        (RMSE, 1.0, 2.0), (ACC, 0.9, 0.5), (BIAS, -0.1, 0.3), (RATIO, 1.1, 0.5), (RMSE, 1.0, math.nan),
        (LIKELIHOOD, -1.5, -2.5), (LIKELIHOOD, 0.5, -0.5),
    ],
)  # fmt: skip
def test_each_metric_knows_its_better_side(metric, better, worse):
    assert metric.shortfall(better) < metric.shortfall(worse)
    won = ScoreLine("t2m", metric, "", None, {"model": better, "persistence": worse})
    assert (won.best, won.outcome_against("persistence")) == ("model", 1)
    lost = ScoreLine("t2m", metric, "", None, {"model": worse, "persistence": better})
    assert (lost.best, lost.outcome_against("persistence")) == ("persistence", -1)


def test_gains_are_shares_of_what_lacks_to_the_perfect_score():
    assert ACC.gain(0.9, 0.2) == pytest.approx(1 - 0.1 / 0.8)
    assert ACC.gain(0.2, 0.9) == pytest.approx(1 - 0.8 / 0.1)
    assert BIAS.gain(0.1, -0.4) == pytest.approx(0.75)
    for gain in (LIKELIHOOD.gain(-1.0, -2.0), RMSE.gain(1.0, 0.0), RMSE.gain(1.0, math.nan), SPREAD.gain(1.0, 2.0)):
        assert math.isnan(gain)
    assert RMSE.gain(math.nan, 1.0) == -math.inf


def test_a_metric_is_read_back_from_a_row():
    for metric in (RMSE, ACC, BIAS, RATIO, LIKELIHOOD, SPREAD, Metric("crps", judges_spread=True)):
        read = Metric.from_row(metric.to_row())
        assert read == metric
        for name in ("label", "better", "perfect", "judges_spread"):
            assert getattr(read, name) == getattr(metric, name)
    assert Metric.from_row({"metric": "mae", "value": 1.0}).label == "MAE"  # rows of files without directions
    with pytest.raises(ValueError, match="perfect score"):
        Metric("odd", better="nearer", perfect=None)


def test_headline_says_where_the_model_loses():
    lines = [
        line("t2m", model=1.0, persistence=2.0, climatology=3.0, ridge=0.9),
        line("z500", model=1.0, persistence=2.0, climatology=3.0, ridge=1.9),
    ]
    assert headline(lines) == (
        "RMSE 72 h ahead: better than persistence and climatology on all 2 variables, "
        "better than ridge on 1 of 2 variables."
    )
    worst = [line(name, model=4.0, persistence=2.0, climatology=3.0) for name in ("t2m", "z500")]
    assert headline(worst) == "RMSE 72 h ahead: worse than persistence and climatology on all 2 variables."
    one = [line("t2m", model=1.0, persistence=2.0)]
    assert headline(one) == "RMSE 72 h ahead: better than persistence."
    assert "Nothing" in headline([])
    assert headline([line("t2m", model=1.0)]) == "RMSE 72 h ahead: no baseline was scored beside the model."


def test_headline_of_one_variable_counts_none():
    bits = Metric("bits_per_byte", "bits per byte")
    lines = [line("text", bits, None, model=2.5, unigram=4.5, weekly_bigram=2.0)]
    assert headline(lines) == "Bits per byte: better than unigram, worse than weekly bigram."


def test_headline_of_a_metric_that_is_better_when_higher():
    lines = [line("t2m", ACC, model=0.9, persistence=0.2)]
    assert headline(lines) == "Anomaly correlation 72 h ahead: better than persistence."


def test_a_tie_is_no_victory():
    assert headline([line("t2m", model=2.0, persistence=2.0)]) == "RMSE 72 h ahead: no better than persistence."
    two = [line("t2m", model=2.0, persistence=2.0), line("z500", model=3.0, persistence=2.0)]
    assert headline(two) == "RMSE 72 h ahead: no better than persistence on all 2 variables."


def test_rows_are_found():
    rows = [row("t2m", 1.0, lead=hours, ridge=2.0, persistence=None) for hours in (24.0, 72.0, 120.0)]
    rows += [row("t2m", 0.9, metric=ACC, persistence=0.5)]
    scores = Scores(rows, BASELINES, 72.0)
    assert scores.lead_times(RMSE) == [24.0, 72.0, 120.0]
    assert scores.main_lead_time == 72.0
    assert Scores(rows, BASELINES).main_lead_time == 120.0  # no lead time is the domain's own
    assert Scores(rows[:1], BASELINES, 72.0).main_lead_time == 24.0
    assert Scores([row("energy", 1.0, lead=None)], (), 72.0).main_lead_time is None
    assert scores.metrics == [RMSE, ACC]
    assert scores.primary_metric == RMSE
    assert Scores([]).primary_metric is None
    assert Scores([]).main_lines == []
    assert scores.predictors == ["persistence", "ridge"]
    assert scores.lines(RMSE, 72.0)[0].values == {"model": 1.0, "ridge": 2.0}
    assert scores.main_lines == scores.lines(RMSE, 72.0)


def test_order_is_that_of_the_domain_with_strangers_last():
    mixed = ["zebra", "ridge", "climatology", "ant", "persistence"]
    assert in_order(mixed, BASELINES) == ["persistence", "climatology", "ridge", "ant", "zebra"]


def test_colors_are_those_of_the_domain_and_strangers_keep_theirs():
    assert style_of("persistence", BASELINES) == ("#123456", "s")
    assert style_of("zebra", BASELINES) == style_of("zebra", ())
    assert style_of("zebra", ()).color in UNDECLARED_COLORS


@pytest.mark.parametrize(
    ("value", "text"), [(2.0, "2.00"), (1075.4, "1075"), (0.08712, "0.0871"), (240.2, "240"), (-0.5, "-0.500")]
)
def test_three_digits(value, text):
    assert format_value(value) == text


@pytest.mark.parametrize(("source", "text"), [("flows", "flows \u00b7 3 cases"), ("", "3 cases")])
def test_what_data_are_is_told_with_the_number_of_cases(monkeypatch, source, text):
    monkeypatch.setattr(Scores, "cases", "3 cases")
    assert Scores([]).with_cases(source) == text


def test_headlines_judge_every_data_set_whatever_its_lead_times():
    def rows(name, *leads):
        return [row(name, lead, lead=lead, persistence=2.0) for lead in leads]

    alike = Scores([*rows("water.height", 1.0, 5.0), *rows("burgers.uwnd", 1.0, 5.0)])
    assert [line.variable for line in alike.main_lines] == ["water.height", "burgers.uwnd"]
    assert headline(alike.main_lines, lambda hours: f"t = {hours:g}").startswith("RMSE t = 5 ahead: worse than")
    apart = Scores([*rows("water.height", 1.0, 5.0), *rows("burgers.uwnd", 0.5, 1.5), *rows("burgers.wwnd", 1.5)])
    assert [line.lead_time_h for line in apart.main_lines] == [5.0, 1.5, 1.5]
    assert headline(apart.main_lines) == (
        "RMSE at the longest lead time of each variable: better than persistence on 2 of 3 variables."
    )
    assert "| burgers.uwnd | 5 | 2 | K |" in score_table(alike)
    assert "| burgers.uwnd | 1.5 h | 1.5 | 2 | K |" in score_table(apart)


def test_lead_times_in_a_unit_of_the_data_are_typed_as_numbers():
    assert lead_as_typed(200 / 3600, format_hours) == "200s"
    assert lead_as_typed(0.2 / 3600, lambda hours: f"t = {3600 * hours:g}") == "0.2"
