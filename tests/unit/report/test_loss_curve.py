"""The course of a training is readable after few steps, too."""

import pytest

from sciml.report import loss_curve

HISTORY = [
    {"step": step, "split": "train", "loss": 1.0 / step, "lr": 1e-3 * step, "grad_norm": 1.0 / step}
    for step in (1, 10, 20)
] + [{"step": 20, "split": "valid", "loss": 0.1, "skill_against_persistence": -0.2}]


def test_steps_are_whole_numbers_and_panels_share_them(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(loss_curve, "save_png", lambda figure, path: drawn.append(figure) or path)
    loss_curve.draw_loss_curve(HISTORY, (), tmp_path / "loss")
    figure = drawn[0]
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.get_xlabel() == "step"]
    assert len({axes.get_xlim() for axes in panels}) == 1
    assert all(tick == round(tick) for axes in panels for tick in axes.get_xticks())
    left, right = figure.axes[-2:]
    assert [left.get_ylabel(), right.get_ylabel()] == ["learning rate", "gradient norm"]
    assert left.get_legend() is None


@pytest.mark.parametrize(("skills", "bottom"), [((-40.0, -0.2), -1.0), ((-40.0, -4.5), -4.5), ((0.1, 0.3), 0.0)])
def test_where_skill_ends_is_shown_and_where_it_began_flattens_nothing(skills, bottom, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(loss_curve, "save_png", lambda figure, path: drawn.append(figure) or path)
    rows = [{"step": n, "split": "valid", "skill_against_persistence": skill} for n, skill in enumerate(skills, 1)]
    loss_curve.draw_loss_curve([*HISTORY[:3], *rows], (), tmp_path / "loss")
    low, high = drawn[0].axes[1].get_ylim()
    assert 1.1 * bottom - 0.1 < low < bottom
    assert high > skills[-1]


@pytest.mark.parametrize("rows", [HISTORY[:1], []])
def test_a_single_loss_is_no_curve(rows):
    assert loss_curve.loss_curve(rows) is None
