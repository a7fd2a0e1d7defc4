"""Laws of scaling: a known law is found again, its optimum is one, and what it predicts has intervals."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import least_squares

from sciml.planning import scaling_law
from sciml.planning.scaling_law import Point, ScalingLaw, ScalingStudy, crossing

TRUTH = ScalingLaw(floor=0.2, a=60.0, alpha=0.45, b=300.0, beta=0.6, flops=40.0, power=0.8)
SIZES = (1e5, 3e5, 1e6, 3e6, 1e7)
BUDGETS = (1e11, 4e11, 1.6e12, 6.4e12)


def points(law: ScalingLaw, noise: float = 0.0) -> list[Point]:
    generator = np.random.default_rng(3)
    found = []
    for size, flops in product(SIZES, BUDGETS):
        samples = law.samples_for(size, flops)
        found.append(Point(size, samples, flops, law.loss(size, samples) * np.exp(noise * generator.normal())))
    return found


def test_a_known_law_is_found_again():
    found = ScalingLaw.fit(points(TRUTH))
    assert found.power == pytest.approx(0.8, rel=1e-6)
    assert found.flops == pytest.approx(40, rel=1e-6)
    for name in ("floor", "alpha", "beta"):
        assert getattr(found, name) == pytest.approx(getattr(TRUTH, name), rel=0.03), name
    assert found.best_loss(1e15) == pytest.approx(TRUTH.best_loss(1e15), rel=0.01)
    assert found.best_size(1e15) == pytest.approx(TRUTH.best_size(1e15), rel=0.1)


def test_a_fit_to_noisy_trainings_is_that_of_an_independent_method():
    """By nonlinear least squares over the plain parameters, with scipy's own loss of Huber."""
    trainings = points(TRUTH, noise=0.03)
    sizes, samples, losses = np.array([(p.parameters, p.samples, p.loss) for p in trainings]).T

    def residuals(x):
        floor, a, alpha, b, beta = x
        return np.log((floor + np.exp(a - alpha * np.log(sizes)) + np.exp(b - beta * np.log(samples))) / losses)

    start = [0.1, np.log(30), 0.4, np.log(200), 0.5]
    positive = ([0, -np.inf, 0, -np.inf, 0], np.inf)
    precisely = {"xtol": 1e-12, "ftol": 1e-14, "max_nfev": 10_000}
    fit = least_squares(residuals, start, bounds=positive, loss="huber", f_scale=scaling_law.HUBER, **precisely)
    found = ScalingLaw.fit(trainings)
    for name, value in zip(("floor", "alpha", "beta"), (fit.x[0], fit.x[2], fit.x[4]), strict=True):
        assert getattr(found, name) == pytest.approx(value, rel=2e-3), name


@pytest.mark.parametrize("flops", [1e11, 1e14])
def test_the_best_size_is_better_than_those_beside_it(flops):
    size = TRUTH.best_size(flops)
    assert TRUTH.best_loss(flops) < min(TRUTH.loss_at(1.02 * size, flops), TRUTH.loss_at(size / 1.02, flops))


@pytest.mark.slow  # hundreds of fits; what a family predicts is checked always in tests/unit/app/test_scaling.py
def test_intervals_hold_the_truth_and_grow_with_the_distance():
    study = ScalingStudy.fit(points(TRUTH, noise=0.01), resamples=30)
    near, far = (study.interval(lambda law, c=c: law.best_loss(c)) for c in (1e12, 1e16))
    for (value, low, high), flops in ((near, 1e12), (far, 1e16)):
        assert low <= value <= high
        assert low / 1.02 < TRUTH.best_loss(flops) < high * 1.02
    assert far[2] / far[1] > near[2] / near[1]


def test_where_one_family_overtakes_another():
    low_at_first = ScalingLaw(floor=0.5, a=20.0, alpha=0.45, b=100.0, beta=0.6, flops=40.0, power=0.8)
    budgets = np.geomspace(1e9, 1e16, 200)
    found = crossing(TRUTH, low_at_first, budgets)
    assert found is not None
    assert TRUTH.best_loss(found) == pytest.approx(low_at_first.best_loss(found), rel=1e-3)
    assert TRUTH.best_loss(found / 3) > low_at_first.best_loss(found / 3)
    assert crossing(TRUTH, TRUTH, budgets) is None


def test_a_check_is_told_beside_its_prediction():
    study = ScalingStudy.fit(points(TRUTH), resamples=5)
    large = Point(2e7, 1e8, 1e14, 0.3)
    told = ScalingStudy(study.points, study.law, study.drawn, large).document(target=1e15)
    assert told["check"]["loss"] == 0.3
    assert told["check"]["predicted"][0] == pytest.approx(TRUTH.loss(2e7, 1e8), rel=0.02)
    assert told["target"]["flops"] == 1e15
