"""Ensembles differ, agree where they should, and say how far they can be trusted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from domains.materials.training.calibration import Calibration
from domains.materials.training.ensemble import combined
from sciml.core.errors import ConfigError
from sciml.domain.loading import load_domain
from sciml.report.run_report import draw_report
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_model
from sciml.testing.sessions import start_session


def test_a_mixture_has_its_members_mean_and_both_kinds_of_variance():
    members = [
        {"hardness": torch.tensor([1.0, 4.0]), "hardness_std": torch.tensor([3.0, 0.0])},
        {"hardness": torch.tensor([3.0, 4.0]), "hardness_std": torch.tensor([3.0, 4.0])},
    ]
    found = combined(members, {"hardness": 2.0})
    torch.testing.assert_close(found["hardness"], torch.tensor([2.0, 4.0]))
    # variance among (1, 3) is 2; that of (4, 4) is 0; own variances are 9 and 8 in the mean
    torch.testing.assert_close(found["hardness_std"], 2.0 * torch.tensor([11.0, 8.0]).sqrt())
    assert set(combined(members[:1], {})) == {"hardness", "hardness_std"}
    assert set(combined([{"energy": torch.ones(1)}], {})) == {"energy"}


def test_right_spreads_are_called_right_and_small_ones_small():
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(-2, 0, 20_000, dtype=torch.float64)
    error = spread * torch.randn(20_000, generator=generator, dtype=torch.float64)
    right, small = Calibration(), Calibration()
    right.update(error, spread)
    small.update(error, spread / 2)
    good, bad = ({metric.name: value for metric, value in some.compute().items()} for some in (right, small))
    assert good["coverage_68"] == pytest.approx(0.683, abs=0.01)
    assert good["coverage_95"] == pytest.approx(0.95, abs=0.005)
    assert good["scaled_error"] == pytest.approx(1.0, abs=0.04)
    assert good["ence"] < 0.03
    assert bad["scaled_error"] == pytest.approx(2 * good["scaled_error"])
    assert bad["coverage_68"] == pytest.approx(0.383, abs=0.01)
    assert bad["ence"] == pytest.approx(1.0, abs=0.05)  # errors are twice the spreads: |s - 2 s| / s
    assert Calibration().compute() == {}


def test_sums_of_ranks_add_up():
    whole, parts = Calibration(), [Calibration(), Calibration()]
    error, spread = torch.randn(40, dtype=torch.float64), torch.rand(40, dtype=torch.float64) + 0.1
    whole.update(error, spread)
    for part, rows in zip(parts, (slice(0, 13), slice(13, 40)), strict=True):
        part.update(error[rows], spread[rows])
    for total, one, other in zip(whole.sums(), parts[0].sums(), parts[1].sums(), strict=True):
        torch.testing.assert_close(total, one + other)


@pytest.fixture(scope="module")
def ensemble(small_run):
    return small_run("task.members=2")


def test_members_start_apart_and_predict_apart(ensemble):
    opened = load_model(ensemble)
    first, second = opened.model.members
    assert not torch.equal(first.encoder.elements.weight, second.encoder.elements.weight)
    scores = {(row["variable"], row["metric"]): row["value"] for row in ensemble.scores()}
    for label in ("energy", "forces", "stress"):
        assert 0 < scores[label, "coverage_95"] <= 1
        assert scores[label, "ence"] >= 0


def test_spreads_are_right_on_the_validation_split(ensemble):
    factors = json.loads((ensemble.path / "calibration.json").read_text())
    assert set(factors) == {"energy", "forces", "stress"}
    assert all(np.isfinite(value) and value > 0 for value in factors.values())
    assert load_model(ensemble).fitted.calibration == factors
    draw_report(ensemble, load_domain(ensemble.record["config"]["domain"]))
    assert (ensemble.path / "figures" / "calibration.png").stat().st_size > 1000


def test_no_member_is_refused(small_values):
    with pytest.raises(ConfigError, match=r"task.members must be at least 1, got 0; try task.members=1"):
        start_session(small_values("task.members=0"))


def test_a_single_model_has_no_calibration(small_run):
    folder: RunFolder = small_run()
    assert not (folder.path / "calibration.json").exists()
