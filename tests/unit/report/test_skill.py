"""Bars and curves show every predictor at its value, however far apart they are."""

from __future__ import annotations

import numpy as np
import pytest

from sciml.domain.score import Baseline, Metric
from sciml.report import skill
from sciml.report.bars import VALUE_WIDTH, bars_beside_baselines
from sciml.report.scores import Scores
from sciml.report.shading import Shading
from sciml.report.style import new_figure


def bars(scores):
    axes = new_figure(5.0, 3.0).add_subplot()
    bars_beside_baselines(axes, scores)
    return axes


VRMSE = Metric("vrmse")
BASELINES = (Baseline("climatology", "#abcdef", "D"), Baseline("ridge", "#fedcba", "^"))


def rows_of(values, hours=(0.005, 0.05), metric=VRMSE):
    return [
        {"variable": name, **metric.to_row(), "lead_time_h": lead, "value": model * (1 + lead), "unit": "1",
         "baseline": {other: value for other, value in baselines.items()}}
        for name, (model, baselines) in values.items()
        for lead in hours
    ]  # fmt: skip


class TestBars:
    def test_lengths_marks_and_values(self):
        axes = bars({"theta": {"model": 0.5, "ridge": 0.7}, "uwnd": {"model": 0.9, "ridge": 0.8}})
        assert [bar.get_width() for bar in axes.patches] == [0.5, 0.9]
        np.testing.assert_allclose(axes.collections[0].get_offsets(), [[0.7, 0], [0.8, 1]])
        assert [text.get_text() for text in axes.texts] == ["0.50", "0.90"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["theta", "uwnd"]
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first one on top
        assert axes.get_xscale() == "linear"

    def test_a_value_beside_a_short_bar_hides_no_mark(self):
        axes = bars({"theta": {"model": 0.05, "ridge": 0.08, "persistence": 0.4, "other": 2.0}})
        x, _ = axes.texts[0].get_position()
        marks = [group.get_offsets()[0][0] / axes.get_xlim()[1] for group in axes.collections]
        assert all(not x - 0.01 < mark < x + VALUE_WIDTH for mark in marks)

    def test_a_value_in_a_bar_is_not_overprinted_by_marks_that_are_better(self):
        axes = bars({"dens": {"model": 0.84, "solver": 0.09, "ridge": 0.3, "persistence": 0.94}})
        x, _ = axes.texts[0].get_position()
        marks = [group.get_offsets()[0][0] / axes.get_xlim()[1] for group in axes.collections]
        assert all(not x - 0.01 < mark < x + VALUE_WIDTH for mark in marks)
        assert axes.texts[0].get_color() == "white"

    def test_what_is_missing_or_infinite_has_no_mark(self):
        axes = bars({"theta": {"model": float("nan"), "ridge": 0.7}, "uwnd": {"model": 0.9, "ridge": float("inf")}})
        assert [text.get_text() for text in axes.texts] == ["not finite", "0.90"]
        assert np.ma.getmaskarray(axes.collections[0].get_offsets())[1, 0]

    def test_scores_that_lie_far_apart_are_told_apart(self):
        axes = bars({"theta": {"model": 0.1, "ridge": 900.0}})
        assert axes.get_xscale() == "log"
        assert axes.get_xlim()[0] < 0.1 < 900 < axes.get_xlim()[1]

    def test_intervals_lie_inside_and_are_not_overprinted(self):
        axes = new_figure(5.0, 3.0).add_subplot()
        intervals = {"theta": (0.02, 1.5), "uwnd": (0.7, 1.1)}
        scores = {"theta": {"model": 0.5, "ridge": 0.7}, "uwnd": {"model": 0.9, "ridge": 0.8}}
        bars_beside_baselines(axes, scores, intervals=intervals)
        assert axes.get_xlim()[1] > 1.5
        ends = [[tuple(end) for end in line] for line in axes.collections[-1].get_segments()]
        assert ends == [[(0.02, 0), (1.5, 0)], [(0.7, 1), (1.1, 1)]]
        beside, inside = (text.get_position()[0] * axes.get_xlim()[1] for text in axes.texts)
        assert beside > 1.5
        assert inside < 0.7


class TestByLeadTime:
    @pytest.fixture
    def shown(self, monkeypatch):
        figures = []
        monkeypatch.setattr(skill, "save_png", lambda figure, path: figures.append(figure))
        return figures

    def draw(self, rows, **options):
        names = {row["variable"]: row["variable"].upper() for row in rows}
        metric = Metric.from_row(rows[0])
        skill.draw_scores_by_lead_time(Scores(rows, BASELINES), names, [metric], "", None, **options)

    def test_every_predictor_is_drawn_in_seconds(self, shown):
        self.draw(rows_of({"theta": (0.5, {"ridge": 0.7, "other": 0.9}), "uwnd": (0.3, {"ridge": 0.2})}))
        first, second = shown[0].axes
        lines = {line.get_label(): line.get_xydata() for line in first.lines}
        assert list(lines) == ["model", "ridge", "other"]
        np.testing.assert_allclose(lines["other"], [[18, 0.9], [180, 0.9]])
        assert len(second.lines) == 2
        assert first.get_xlabel() == "lead time, seconds"
        assert [axes.get_title("left") for axes in shown[0].axes] == ["THETA", "UWND"]
        assert {text.get_text() for text in shown[0].legends[0].get_texts()} == {"model", "ridge", "other"}

    def test_what_says_nothing_is_hidden_and_levels_are_marked(self, shown):
        rows = rows_of({"t2m": (0.5, {"climatology": 1.0, "ridge": 0.7})}, hours=(24.0, 72.0))
        self.draw(rows, hidden={(VRMSE, BASELINES[0])}, levels={VRMSE: 1.0})
        axes = shown[0].axes[0]
        assert axes.get_xlabel() == "lead time, hours"
        assert [line.get_label() for line in axes.lines[:2]] == ["model", "ridge"]
        assert list(axes.lines[2].get_ydata()) == [1.0, 1.0]
        assert {24.0, 48.0, 72.0} <= set(axes.get_xticks())

    def test_baselines_are_drawn_as_the_domain_says(self, shown):
        self.draw(rows_of({"t2m": (0.5, {"climatology": 1.0, "ridge": 0.7})}))
        styles = {line.get_label(): (line.get_color(), line.get_marker()) for line in shown[0].axes[0].lines}
        assert styles["climatology"] == ("#abcdef", "D")
        assert styles["ridge"] == ("#fedcba", "^")

    def test_axes_end_at_the_perfect_score(self, shown):
        rows = {"t2m": (0.5, {"ridge": 0.3})}
        self.draw(rows_of(rows))
        self.draw(rows_of(rows, metric=Metric("acc", "correlation", better="higher", perfect=1.0)))
        assert shown[0].axes[0].get_ylim()[0] == 0
        assert shown[1].axes[0].get_ylim()[1] == 1
        assert shown[1].axes[0].get_ylabel() == "correlation"

    @pytest.mark.parametrize(
        ("metric", "value", "ends"),
        [
            (VRMSE, 0.5, (0.1, 3.0)),
            (Metric("acc", better="higher", perfect=1.0), 0.5, (-0.8, 0.99)),
            (Metric("bias", better="nearer"), 0.5, (-4.0, 3.0)),
            (Metric("nll", perfect=None), 0.5, (-4.0, 3.0)),
            (VRMSE, 0.0, (0.0, 0.1)),
            (Metric("acc", better="higher", perfect=1.0), 1.0, (0.8, 1.0)),
        ],
    )
    def test_intervals_and_marks_lie_inside(self, shown, metric, value, ends):
        rows = [
            {"variable": "t2m", **metric.to_row(), "lead_time_h": lead, "value": value, "unit": "1", "interval": ends,
             "baseline": {"ridge": value}}
            for lead in (24.0, 72.0)
        ]  # fmt: skip
        self.draw(rows)
        low, high = shown[0].axes[0].get_ylim()
        assert low <= ends[0] < ends[1] <= high
        assert low < value < high

    def test_a_model_that_runs_away_does_not_flatten_the_others(self, shown):
        self.draw(rows_of({"theta": (500.0, {"ridge": 0.7})}))
        assert shown[0].axes[0].get_yscale() == "log"


class TestShading:
    def test_spans_and_centers(self):
        values = np.linspace(-3, 9, 1001)
        assert Shading.spanning("viridis", values).low == pytest.approx(-3, abs=0.1)
        centered = Shading.of_errors(values, np.full(3, np.inf))
        assert centered.low == -centered.high == pytest.approx(-9, abs=0.1)

    @pytest.mark.parametrize("values", [np.full(10, 280.0), np.full(4, np.nan)])
    def test_a_field_without_a_range_has_a_scale(self, values):
        assert Shading.spanning("viridis", values).low < Shading.spanning("viridis", values).high
        assert Shading.of_errors(np.zeros(3)).high > 0
