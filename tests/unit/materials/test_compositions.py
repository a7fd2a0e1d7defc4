"""Grids of compositions: complete, exact, and counted without being made."""

from __future__ import annotations

from itertools import product

import pytest

from domains.materials.screening.compositions import Composition, CompositionGrid, read_grid, refuse_too_many, shares
from sciml.core.errors import ConfigError

METALS = ("Co", "Cu", "Fe", "Ni", "Pd")


@pytest.mark.parametrize(
    ("total", "parts", "least", "most"),
    [(10, 3, 1, 10), (10, 3, 2, 4), (8, 4, 1, 3), (6, 1, 1, 6), (5, 2, 0, 5), (9, 3, 4, 9)],
)
def test_shares_are_all_that_add_up(total, parts, least, most):
    brute = [steps for steps in product(range(least, most + 1), repeat=parts) if sum(steps) == total]
    assert list(shares(total, parts, least, most)) == brute


@pytest.mark.parametrize("limits", [(0.0, 1.0), (0.1, 0.35), (0.2, 0.4), (0.05, 0.3)])
@pytest.mark.parametrize("step", [0.1, 0.05, 0.125])
def test_the_count_is_that_of_what_is_made(step, limits):
    grid = read_grid(METALS, (3, 4, 5), step, *limits)
    made = list(grid.compositions())
    assert len(made) == grid.count == len(set(made)) > 0
    for one in made:
        assert sum(one.steps) == grid.steps
        assert all(max(limits[0], step) - 1e-9 <= share <= limits[1] + 1e-9 for share in one.fractions.values())


def test_quinaries_of_eight_metals():
    grid = read_grid((*METALS, "Ag", "Au", "Pt"), (5,), 0.1, 0.0, 1.0)
    assert grid.count == 56 * 126


def test_limits_take_steps_that_they_touch():
    """0.3 / 0.1 is a little less than 3."""
    found = {one.steps for one in read_grid(("Co", "Ni"), (2,), 0.1, 0.3, 0.7).compositions()}
    assert found == {(k, 10 - k) for k in range(3, 8)}


def test_thirds_may_be_rounded():
    assert read_grid(("Co", "Ni"), (2,), 0.333333, 0, 1).steps == 3


def test_names():
    assert Composition(("Co", "Cu"), (3, 5)).name == "Co37.5Cu62.5"
    assert Composition(("Co",), (8,)).name == "Co"
    assert Composition(("Co", "Cu"), (1, 2)).fractions == {"Co": 1 / 3, "Cu": 2 / 3}


@pytest.mark.parametrize("step", [0.3, 0.0, -0.1, 1.5])
def test_a_step_divides_one(step):
    with pytest.raises(ConfigError, match=r"step: .*for example step=0"):
        read_grid(METALS, (5,), step, 0, 1)


def test_limits_that_leave_nothing():
    with pytest.raises(
        ConfigError, match=r"no 5 elements have fractions between 0.1 and 0.15 in steps of 0.1; for example"
    ):
        read_grid(METALS, (5,), 0.1, 0, 0.15)


def test_too_many_are_refused_with_a_step_that_fits():
    grid = read_grid(METALS, (5,), 0.01, 0, 1)
    with pytest.raises(
        ConfigError, match=r"3,764,376 compositions of 12 structures each .* more than 2,000 structures; step="
    ) as e:
        refuse_too_many(grid, 12, 2000)
    step = float(e.value.hint.split("=")[1].split(" ")[0])
    refuse_too_many(read_grid(METALS, (5,), step, 0, 1), 12, 2000)
    finer = CompositionGrid(METALS, (5,), round(1 / step) + 1)
    assert finer.count * 12 > 2000


def test_too_many_at_any_step():
    with pytest.raises(ConfigError, match="choose fewer elements"):
        refuse_too_many(read_grid(METALS, (3,), 0.1, 0, 1), 1000, 2000)
