"""Comparisons: means, intervals that cover, ratios in pairs, a table and a picture."""

from itertools import pairwise

import numpy as np
import pytest

from sciml.domain.score import Metric, Score
from sciml.report import comparison
from sciml.report.comparison import compare_models, draw_comparison, markdown_table

COST = {"train_step_s": 0.1, "infer_step_s": 0.01, "train_s": 100.0, "parameters": 1000.0}


def rows(model, errors, lead=1.0, variables=("a", "b")):
    """From errors (seed, group), each the mean of two cases and two variables."""
    found = []
    for (seed, group), value in np.ndenumerate(np.asarray(errors, float)):
        for case in range(2):
            for number, variable in enumerate(variables):
                shifted = value + (0.1 if case else -0.1) + (0.2 if number else -0.2)
                score = Score(variable, Metric("vrmse"), shifted, "1", lead).to_row()
                found.append({"model": model, "seed": seed, "case": 2 * group + case, "group": f"g{group}", **score})
                found.append({**found[-1], "metric": "rmse", "value": 1e9})
    return found


def compared(errors, **leads):
    cases = [row for model, table in errors.items() for row in rows(model, table)]
    return compare_models(cases, dict.fromkeys(errors, COST))


def test_means_are_over_variables_cases_and_seeds():
    found = compared({"model": [[1.0, 2.0, 6.0], [2.0, 3.0, 4.0]], "other": [[1.0, 1.0, 1.0]]})
    by_model = {row["model"]: row for row in found["scores"]}
    assert by_model["model"]["value"][0] == pytest.approx(3.0)
    assert (by_model["model"]["seeds"], by_model["other"]["seeds"], found["groups"]) == (2, 1, 3)
    assert by_model["model"]["relative"] == pytest.approx([1, 1, 1])
    # one seed of the other is compared with the same seed of the first
    assert by_model["other"]["relative"][0] == pytest.approx(1 / 3)


def test_variables_in_different_units_are_compared_in_the_first_models_errors():
    cases = []
    for model, factor in (("model", 1.0), ("other", 2.0)):
        for lead, scale in ((1.0, 1.0), (2.0, 3.0)):
            for variable, unit, size in (("z", "m2 s-2", 1000.0), ("t", "K", 2.0)):
                score = Score(variable, Metric("rmse"), factor * scale * size, unit, lead).to_row()
                group = {"model": model, "seed": 0, "case": int(lead), "group": f"{lead}"}  # each lead has its own
                cases.append({**group, **score})
    found = compare_models(cases, dict.fromkeys(("model", "other"), COST))
    assert [row["value"][0] for row in found["scores"]] == pytest.approx([1, 2, 1, 2])
    assert "in model's" in markdown_table(found)


def test_what_does_not_vary_has_no_interval():
    found = compared({"model": [[2.0, 2.0]], "other": [[3.0, 3.0]]})
    assert found["scores"][1]["value"] == pytest.approx([3, 3, 3])
    assert found["scores"][1]["relative"] == pytest.approx([1.5, 1.5, 1.5])


def test_differences_in_pairs_are_sharper_than_means():
    generator = np.random.default_rng(0)
    hard = generator.uniform(1, 5, size=(1, 20))
    found = compared({"model": hard, "other": 1.1 * hard})
    value, relative = found["scores"][1]["value"], found["scores"][1]["relative"]
    assert value[2] - value[1] > 0.5
    assert relative == pytest.approx([1.1, 1.1, 1.1])


def test_intervals_cover_the_mean_as_often_as_they_say():
    generator, inside = np.random.default_rng(1), 0
    for _ in range(100):
        found = compared({"model": generator.normal(3, 1, size=(1, 30))})
        _, low, high = found["scores"][0]["value"]
        inside += low <= 3 <= high
    assert 86 <= inside <= 100


ERRORS = [1.0, 1.0, 2.0, 2.0]


def test_few_independent_cases_have_no_interval():
    cases = [row for model in ("model", "fno") for row in rows(model, [ERRORS[:3]])]
    table = markdown_table(compare_models(cases, {"model": COST, "fno": COST}))
    assert "| 1.333 | 1.000 |" in table
    assert "3 independent cases; an interval needs 4 of them." in table


def test_table_and_picture(tmp_path):
    cases = [row for model in ("model", "uniform_8") for lead in (0.1, 1.0) for row in rows(model, [ERRORS], lead)]
    document = compare_models(cases, {"model": COST, "uniform_8": {**COST, "train_s": 50.0}})
    table = markdown_table(document)
    assert "| uniform 8 | 1 | 1,000 | 100 | 50 | 10.0 | 1.500 (1.000-2.000) |" in table
    assert "VRMSE 360 s" in table
    assert "VRMSE t = 0.1 |" in markdown_table(document, lambda hours: f"t = {hours:g}")
    (picture,) = draw_comparison(document, tmp_path)
    assert picture.stat().st_size > 10_000


def test_a_legend_of_long_names_lies_inside_and_labels_of_near_costs_are_apart(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(comparison, "save_png", lambda figure, path: drawn.append(figure) or path)
    names = [f"a-run-with-a-long-name-{number}" for number in range(4)]
    costs = {name: {"parameters": 1, "train_step_s": 1.0, "train_s": 1.0 + n / 10, "infer_step_s": 10.0**n}
             for n, name in enumerate(names)}  # fmt: skip
    draw_comparison(compare_models([r for name in names for r in rows(name, np.ones((1, 3)))], costs), tmp_path)
    (figure,) = drawn
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.width
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log"]
    ends = [label.get_window_extent() for label in figure.axes[0].get_xticklabels() if label.get_text()]
    assert all(left.x1 < right.x0 for left, right in pairwise(ends))


def test_what_is_far_worse_does_not_press_trained_models_together(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(comparison, "save_png", lambda figure, path: drawn.append(figure) or path)
    free = {**COST, "train_s": 0.0, "infer_step_s": 1e-6}
    errors = {"model": 1.0, "unet": 1.1, "persistence": 9.0, "solver": 0.5}
    cases = [r for name, error in errors.items() for r in rows(name, np.full((1, 3), error))]
    draw_comparison(compare_models(cases, {"model": COST, "unet": COST, "persistence": free, "solver": free}), tmp_path)
    (figure,) = drawn
    for axes in figure.axes:
        assert axes.get_yscale() == "linear"
        low, high = axes.get_ylim()
        assert low < 0.5
        assert 1.1 < high < 1.6
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "persistence, free, beyond" in names
    assert "solver, free" in names


def test_panels_of_a_row_share_the_scale_of_costs_where_only_some_show_what_is_cheap(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(comparison, "save_png", lambda figure, path: drawn.append(figure) or path)
    cheap = {**COST, "train_s": 0.0, "infer_step_s": COST["infer_step_s"] / 10}
    errors = {0.1: {"model": 1.0, "unet": 1.1, "solver": 1.2}, 1.0: {"model": 1.0, "unet": 1.1, "solver": 9.0}}
    cases = [r for lead, by_name in errors.items() for name, error in by_name.items()
             for r in rows(name, np.full((1, 3), error), lead)]  # fmt: skip
    draw_comparison(compare_models(cases, {"model": COST, "unet": COST, "solver": cheap}), tmp_path)
    (figure,) = drawn
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "linear", "log", "log"]
