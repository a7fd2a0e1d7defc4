"""Forests: every level covers its parents once, budgets are kept, nothing depends on company."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from domains.fluids.amr.config import AMRConfig
from domains.fluids.amr.forest import Forest, PatchGeometry, slots
from domains.fluids.amr.indicators import variance
from domains.fluids.amr.refinement import grow
from domains.fluids.data.boundary import Boundary
from sciml.core.config import build
from sciml.core.errors import ConfigError

from .flows import BOX, CHANNEL_FLOW, config, evidence, flow


def forest(fields=None, boundary=CHANNEL_FLOW, before=None, scores=None, trim=False, **changes) -> Forest:
    cfg = config(**changes)
    fields = flow(3) if fields is None else fields
    given = evidence(fields, boundary)
    geometry = PatchGeometry(tuple(fields.shape[2:]), cfg.patch_sizes)
    score = (lambda level: variance(given, geometry, level)) if scores is None else (lambda level: scores[level])
    return grow(cfg, geometry, score, given.periodic, before, trim=trim)


def cells_of(found: Forest, level: int, sample: int) -> torch.Tensor:
    """How many of a level's patches cover each cell."""
    geometry, size = found.geometry, found.geometry.patch_sizes[level]
    count = torch.zeros(geometry.padded, dtype=torch.int)
    rows, columns = geometry.coordinates(found.levels[level].nodes[sample], level)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        count[row * size : (row + 1) * size, column * size : (column + 1) * size] += 1
    return count


def refined_cells(found: Forest, level: int, sample: int) -> torch.Tensor:
    flags = found.is_refined(level)[sample].view(found.geometry.shape(level))
    size = found.geometry.patch_sizes[level]
    return flags.repeat_interleave(size, 0).repeat_interleave(size, 1)


@pytest.mark.parametrize(
    ("patch", "ratios", "budgets"),
    [(8, (2, 2), (0.25, 0.5)), (8, (4,), (0.4,)), (16, (4, 2, 2), (0.5, 0.3, 0.2)), (8, (), ())],
)
@pytest.mark.parametrize("shape", [(16, 32), (21, 37)])
def test_each_level_covers_its_refined_parents_once(patch, ratios, budgets, shape):
    found = forest(flow(2, *shape), patch_size=patch, ratios=ratios, budgets=budgets)
    for sample in range(2):
        assert (cells_of(found, 0, sample) == 1).all()
        for level in range(1, len(ratios) + 1):
            assert torch.equal(cells_of(found, level, sample), refined_cells(found, level - 1, sample).int())


def test_children_stand_behind_one_another_in_the_order_of_their_parents():
    found = forest()
    for index, level in enumerate(found.levels[:-1]):
        parents = level.nodes.gather(1, level.refined)
        count, below = found.geometry.num_children(index), found.levels[index + 1]
        places = found.geometry.coordinates(below.nodes, index + 1)
        above = found.geometry.coordinates(parents.repeat_interleave(count, 1), index)
        assert all(torch.equal(place // 2, other) for place, other in zip(places, above, strict=True))


def test_numbers_work_along_any_number_of_axes():
    geometry = PatchGeometry((8, 4, 12), (4, 2))
    assert geometry.shape(0) == (2, 1, 3)
    assert geometry.num_children(0) == 8
    nodes = torch.arange(6)[None]
    children = geometry.children(nodes, 0)
    assert sorted(children[0].tolist()) == list(range(geometry.num_nodes(1)))
    parts = geometry.coordinates(children.view(1, 6, 8), 1)
    above = geometry.coordinates(nodes, 0)
    assert all((part // 2 == one[..., None]).all() for part, one in zip(parts, above, strict=True))


@pytest.mark.parametrize("budgets", [(0.0, 0.0), (0.25, 0.5), (1.0, 1.0), (0.3, 0.0)])
def test_budget_is_kept(budgets):
    found = forest(budgets=budgets)
    wanted = 8
    for index, budget in enumerate(budgets):
        assert found.levels[index].num_tokens == wanted
        assert found.levels[index].refined.shape[1] == int(budget * wanted + 0.5)
        wanted = 4 * int(budget * wanted + 0.5)
    assert found.num_tokens == sum(level.num_tokens for level in found.levels) == found.offsets[-1]
    assert found.mask is None


def test_best_patches_are_refined():
    fields = flow(3)
    scores = variance(evidence(fields), PatchGeometry((16, 32), (8, 4, 2)), 0)
    found = forest(fields)
    for sample in range(3):
        chosen = set(found.levels[0].refined[sample].tolist())
        assert chosen == set(scores[sample].argsort(descending=True)[:2].tolist())


def test_ties_go_to_the_first():
    found = forest(torch.zeros(2, 4, 16, 32), budgets=(0.5, 0.25))
    assert found.levels[0].refined.tolist() == [[0, 1, 2, 3]] * 2
    assert found.levels[1].refined.tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize(
    "changes", [{}, {"buffer": 1, "balance": True}, {"threshold": 0.3}, {"threshold": 0.3, "trim": True}]
)
def test_samples_do_not_depend_on_order_or_company(changes):
    fields = flow(3)
    together = forest(fields, **changes)
    turned = forest(fields.flip(0), **changes)
    for index in range(2):
        flags = together.is_refined(index)
        assert torch.equal(turned.is_refined(index).flip(0), flags)
        for sample in range(3):
            assert torch.equal(forest(fields[sample : sample + 1], **changes).is_refined(index)[0], flags[sample])


@pytest.mark.parametrize("changes", [{}, {"buffer": 1}, {"threshold": 0.3}, {"balance": True}])
def test_forest_moves_with_a_periodic_flow(changes):
    fields = flow(2)
    before, after = forest(fields, **changes), forest(fields.roll(8, -1), **changes)
    for index in range(2):
        shape, step = before.geometry.shape(index), 2**index
        moved = before.is_refined(index).view(-1, *shape).roll(step, -1)
        assert torch.equal(after.is_refined(index).view(-1, *shape), moved)


def spike(rows: int = 4, columns: int = 6, at: tuple[int, int] = (2, 0)) -> torch.Tensor:
    scores = torch.rand(1, rows, columns, generator=torch.Generator().manual_seed(0)) / 10
    scores[0][at] = 1.0
    return scores.flatten(1)


@pytest.mark.parametrize(("boundary", "columns"), [(CHANNEL_FLOW, {5, 0, 1}), (BOX, {0, 1})])
def test_buffer_takes_neighbors_around_periodic_ends_only(boundary, columns):
    count = 3 * len(columns)
    found = forest(flow(1, 32, 48), boundary, scores=[spike()], ratios=(2,), budgets=(count / 24,), buffer=1)
    assert set(found.levels[0].refined[0].tolist()) == {6 * row + column for row in (1, 2, 3) for column in columns}


def test_buffer_that_does_not_fit_takes_the_best_of_it():
    scores = spike()
    found = forest(flow(1, 32, 48), scores=[scores], ratios=(2,), budgets=(4 / 24,), buffer=1)
    chosen = found.levels[0].refined[0].tolist()
    around = [6 * row + column for row in (1, 2, 3) for column in (5, 0, 1)]
    best = sorted(around, key=lambda node: -scores[0, node].item())[:4]
    assert chosen == sorted(best)


def test_hysteresis_keeps_what_was_refined():
    first = torch.tensor([[1.0, 0.9, 0.1, 0.2]])
    second = torch.tensor([[0.9, 1.0, 0.1, 0.2]])
    size = {"ratios": (2,), "budgets": (0.25,), "hysteresis": 0.2}
    fields = flow(1, 8, 32)
    before = forest(fields, scores=[first], **size)
    assert forest(fields, scores=[second], **size).levels[0].refined.tolist() == [[1]]
    assert forest(fields, scores=[second], before=before, **size).levels[0].refined.tolist() == [[0]]
    far = forest(fields, scores=[torch.tensor([[0.8, 1.0, 0.1, 0.2]])], before=before, **size)
    assert far.levels[0].refined.tolist() == [[1]]


def test_balance_keeps_neighbors_within_one_level():
    fields = flow(3, 32, 48)
    plain, balanced = (forest(fields, budgets=(0.3, 0.9), balance=balance) for balance in (False, True))

    def jumps(found: Forest) -> int:
        """Refined patches of level 1 next to a place where no patch of level 1 is."""
        shape = found.geometry.shape(1)
        exists = found.is_refined(0).view(-1, *found.geometry.shape(0)).repeat_interleave(2, 1).repeat_interleave(2, 2)
        padded = torch.nn.functional.pad(exists.double()[:, None], (0, 0, 1, 1), value=1.0)
        padded = torch.cat([padded[..., -1:], padded, padded[..., :1]], dim=-1)
        missing = torch.nn.functional.max_pool2d(1 - padded, 3, 1)[:, 0].bool()
        return int((found.is_refined(1).view(-1, *shape) & missing).sum())

    assert jumps(plain) > 0
    assert jumps(balanced) == 0
    assert balanced.levels[2].present.any()


def test_threshold_refines_what_exceeds_it_and_no_more_than_the_budget():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.2], [1.0, 0.05, 0.0, 0.09], [0.0, 0.0, 0.0, 0.0], [0.8, 0.9, 1.0, 0.7]])
    size = {"ratios": (2,), "budgets": (0.75,), "threshold": 0.5}
    found = forest(flow(4, 8, 32), scores=[scores], **size)
    flags = found.is_refined(0)
    assert flags.int().tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert found.num_tokens == 4 + 3 * 4
    assert found.mask.sum(1).tolist() == [4 + 8, 4 + 4, 4, 4 + 12]
    few = forest(flow(4, 8, 32)[:2], scores=[scores[:2]], trim=True, **size)
    none = forest(flow(4, 8, 32)[2:3], scores=[scores[2:3]], trim=True, **size)
    assert few.num_tokens == 4 + 2 * 4  # nothing is kept that no sample needs
    assert torch.equal(few.is_refined(0), flags[:2])
    assert none.num_tokens == 4


@pytest.mark.parametrize("buffer", [0, 1])
def test_patches_outside_the_grid_come_last(buffer):
    """A budget of as many as there are inside, 15 of 24, takes just these."""
    found = forest(flow(2, 9, 17), patch_size=8, budgets=(1.0, 15 / 24), buffer=buffer)
    assert found.levels[1].refined.shape == (2, 15)
    rows, columns = found.geometry.coordinates(found.levels[1].nodes.gather(1, found.levels[1].refined), 1)
    assert ((rows * 4 < 9) & (columns * 4 < 17)).all()


def test_samples_of_different_boundaries_share_a_batch():
    fields, kinds = flow(2), (CHANNEL_FLOW, BOX)
    cfg = config(buffer=1)
    given = replace(evidence(fields), boundaries=kinds)
    geometry = PatchGeometry((16, 32), cfg.patch_sizes)
    both = grow(cfg, geometry, lambda level: variance(given, geometry, level), given.periodic)
    for sample, kind in enumerate(kinds):
        alone = forest(fields[sample : sample + 1], kind, buffer=1)
        assert torch.equal(both.is_refined(0)[sample], alone.is_refined(0)[0])


def test_a_budget_of_more_than_all_is_refused():
    with pytest.raises(ConfigError, match=r"model\.budgets: 12 patches cannot be refined of 8; write shares"):
        slots(1.5, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratios": (3,)}, r"model\.ratios: patches of 8 cells cannot be refined by \[3\]"),
        ({"ratios": (1, 2)}, r"model\.ratios: .*\[1, 2\]"),
        ({"ratios": (4, 4)}, r"model\.ratios: .*\[4, 4\]"),
        ({"budgets": (0.5,)}, r"model\.budgets: 1 budgets do not suit 2 ratios; .*\[0\.25, 0\.25\]"),
        ({"budgets": (0.5, -0.1)}, r"model\.budgets\.1 must be at least 0, got -0\.1"),
        ({"budgets": (0.25, 1.5)}, r"model\.budgets\.1 must be at most 1, got 1\.5"),
        ({"indicator": "vortex"}, r"model\.indicator must be one of .*did you mean 'vorticity'"),
        ({"coupling": "twoway"}, r"model\.coupling must be one of .*did you mean 'two_way'"),
        ({"threshold": 1.0}, r"model\.threshold must be below 1, got 1\.0"),
        ({"buffer": -1}, r"model\.buffer must be at least 0, got -1"),
        ({"hysteresis": -0.5}, r"model\.hysteresis must be at least 0, got -0\.5"),
        ({"ghost_cells": -1}, r"model\.ghost_cells must be at least 0, got -1"),
        ({"position_features": ("latitude",)}, r"model\.position_features: fluids has no 'latitude'"),
        ({"rotary_axes": ("y",)}, r"model\.rotary_axes: fluids has no 'y'"),
        ({"condition_on": ("time",)}, r"model\.condition_on: fluids has no 'time'; did you mean 'lead_time'"),
    ],
)
def test_bad_configuration_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(AMRConfig, {**vars(config()), **changes}, prefix="model")


def test_boundary_names_axes_in_the_order_of_the_fields():
    assert evidence(flow(1), Boundary.of("periodic", "open")).periodic.tolist() == [[False, True]]
