"""The merge: detail from below, means from above."""

from __future__ import annotations

import pytest
import torch

from domains.fluids.amr.indicator_inputs import patch_means
from domains.fluids.amr.merge import Merge
from domains.fluids.amr.patch_edges import PatchEdgeFilter
from domains.fluids.amr.token_shard import TokenShard
from domains.fluids.data.boundary import Boundary

from .flows import BOX, CHANNEL_FLOW, filled, flow
from .test_forest import forest


def cells_for(found, channels: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    sizes = found.geometry.patch_sizes
    return [
        torch.randn(len(level.nodes), level.num_tokens, channels, size**2, dtype=torch.float64)
        for level, size in zip(found.levels, sizes, strict=True)
    ]


def merged(found, cells) -> torch.Tensor:
    return Merge()(cells, found, TokenShard(0, found.num_tokens, 0), (), ())


@pytest.mark.parametrize("shape", [(16, 32), (19, 35)])
@pytest.mark.parametrize("changes", [{}, {"ratios": (4,), "budgets": (0.5,)}, {"threshold": 0.3}])
def test_restricting_the_merged_field_gives_what_coarser_levels_say(shape, changes):
    found = forest(flow(2, *shape), **changes)
    cells = cells_for(found)
    whole = merged(found, cells)
    assert whole.shape == (2, 2, *shape)
    for level in range(len(cells) - 1):
        above = merged(found, [*cells[: level + 1], *(torch.zeros_like(each) for each in cells[level + 1 :])])
        means, coarse = (patch_means(each, found.geometry, level)[0] for each in (whole, above))
        torch.testing.assert_close(means, coarse, rtol=0, atol=1e-13)
        assert (whole - above).abs().max() > 0.5
    above = merged(found, [cells[0], *(torch.zeros_like(each) for each in cells[1:])])
    torch.testing.assert_close(whole.sum((-1, -2)), above.sum((-1, -2)))  # mass of the whole


def test_merged_field_is_what_loops_say():
    found = forest(flow(2))
    cells = cells_for(found)
    expected = torch.zeros(2, 2, 16, 32, dtype=torch.float64)
    for index, level in enumerate(found.levels):
        size = found.geometry.patch_sizes[index]
        part = torch.zeros_like(expected)
        rows, columns = found.geometry.coordinates(level.nodes, index)
        for sample in range(2):
            for token in range(level.num_tokens):
                row, column = rows[sample, token] * size, columns[sample, token] * size
                part[sample, :, row : row + size, column : column + size] = cells[index][sample, token].view(
                    2, size, size
                )
        if index:  # without the mean over each patch of the level above
            above = part.unflatten(-1, (-1, 2 * size)).unflatten(-3, (-1, 2 * size))
            part = (above - above.mean((-1, -3), keepdim=True)).flatten(-2).flatten(-3, -2)
        expected += part
    torch.testing.assert_close(merged(found, cells), expected)


def test_patches_that_fill_up_the_batch_add_nothing():
    found = forest(flow(2), budgets=(0.75, 0.5), threshold=0.5)
    assert not found.mask.all()
    cells = cells_for(found)
    other = [each.clone() for each in cells]
    for level, each in zip(found.levels, other, strict=True):
        if level.present is not None:
            each[~level.present] = 100.0
    torch.testing.assert_close(merged(found, other), merged(found, cells))


@pytest.mark.parametrize("shape", [(16, 32), (19, 35)])
def test_ranks_fields_add_up(shape):
    found = forest(flow(2, *shape))
    cells = cells_for(found)
    length = -(-found.num_tokens // 3)
    total = 0
    for rank in range(3):
        share = TokenShard(rank * length, min((rank + 1) * length, found.num_tokens), 0)
        own = [
            each[:, share.within(start, start + each.shape[1])]
            for each, start in zip(cells, found.offsets, strict=False)
        ]
        total = total + Merge()(own, found, share, (), ())
    torch.testing.assert_close(total, merged(found, cells))


def test_the_patch_edge_filter_keeps_constants_and_means_and_follows_the_boundary():
    names = ("dens", "uwnd")
    edge_filter = filled(PatchEdgeFilter(names, 5)).double()
    fields = torch.randn(2, 2, 8, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        smooth = edge_filter(fields, names, (CHANNEL_FLOW, CHANNEL_FLOW))
        assert (smooth - fields).abs().max() > 0.1
        constant = torch.ones(1, 2, 8, 16, dtype=torch.float64)
        kept = edge_filter(constant, names, (Boundary.of("periodic", "periodic"),))
        torch.testing.assert_close(kept, constant)
        everywhere = edge_filter(fields[:1], names, (Boundary.of("periodic", "periodic"),))
        torch.testing.assert_close(everywhere.mean((-2, -1)), fields[:1].mean((-2, -1)))
        weight = edge_filter.weight - edge_filter.weight.mean((-2, -1), keepdim=True)
        row, column = 3, 0  # at the periodic edge
        around = fields[0, 0, row - 2 : row + 3][:, [14, 15, 0, 1, 2]]
        expected = fields[0, 0, row, column] + (around * weight[0, 0]).sum()
        torch.testing.assert_close(smooth[0, 0, row, column], expected)
        mirrored = edge_filter(fields, names, (CHANNEL_FLOW, BOX))
        torch.testing.assert_close(mirrored[0], smooth[0])
        assert (mirrored[1] - smooth[1])[..., 2:-2].abs().max() == 0
        assert (mirrored[1] - smooth[1]).abs().max() > 1e-3
        alone = edge_filter(fields[:, 1:], ("uwnd",), (CHANNEL_FLOW, CHANNEL_FLOW))
        torch.testing.assert_close(alone[:, 0], smooth[:, 1])
