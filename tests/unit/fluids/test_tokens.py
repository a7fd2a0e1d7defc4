"""Tokens: patches with their ghost cells, embedded by hand; positions."""

from __future__ import annotations

import math

import pytest
import torch

from domains.fluids.amr.forest import PatchGeometry
from domains.fluids.amr.positions import patch_angles
from domains.fluids.amr.token_shard import TokenShard
from domains.fluids.amr.tokens import PatchEmbedding, Tokenizer, gather_patches
from domains.fluids.data.boundary import Boundary
from sciml.core.errors import ConfigError
from sciml.nn.initialization import initialize
from sciml.nn.patch import patchify

from .flows import BOX, CHANNEL_FLOW, CHANNELS, evidence, flow
from .test_forest import forest

EVEN = ([False] * 4, [False] * 4)


@pytest.mark.parametrize("size", [8, 4])
def test_patches_without_ghosts_are_those_of_the_suite(size):
    fields, geometry = flow(), PatchGeometry((16, 32), (size,))
    nodes = torch.arange(geometry.num_nodes(0)).expand(2, -1)
    assert torch.equal(gather_patches(fields, nodes, geometry, 0, 0), patchify(fields, size))


@pytest.mark.parametrize("ghosts", [1, 2])
def test_patches_have_their_neighbors_cells(ghosts):
    fields, found = flow(), forest(flow())
    padded = CHANNEL_FLOW.pad(fields, ghosts, EVEN)
    for index, level in enumerate(found.levels):
        size = found.geometry.patch_sizes[index]
        patches = gather_patches(padded, level.nodes, found.geometry, index, ghosts)
        rows, columns = found.geometry.coordinates(level.nodes, index)
        for sample, token in ((0, 0), (1, level.num_tokens - 1)):
            row, column = rows[sample, token] * size, columns[sample, token] * size
            expected = padded[sample, :, row : row + size + 2 * ghosts, column : column + size + 2 * ghosts]
            assert torch.equal(patches[sample, token], expected.flatten(1))


def test_embedding_is_a_sum_over_variables_in_any_order():
    torch.manual_seed(0)
    embedding = PatchEmbedding(CHANNELS, 9, 5).double()
    torch.nn.init.normal_(embedding.weight)
    patches = torch.randn(2, 3, 2, 9, dtype=torch.float64)
    expected = sum(patches[:, :, i] @ embedding.weight[v, :-1] + embedding.weight[v, -1] for i, v in enumerate((3, 1)))
    torch.testing.assert_close(embedding(patches, ("theta", "uwnd")), expected)
    torch.testing.assert_close(embedding(patches.flip(2), ("uwnd", "theta")), expected)
    with pytest.raises(ConfigError, match=r"data\.variables: the model has no variable 'thetas'; did you mean 'theta'"):
        embedding(patches, ("thetas", "uwnd"))


def test_tokens_have_unit_variance_at_first():
    torch.manual_seed(0)
    tokenizer = Tokenizer(CHANNELS, (8, 4, 2), 1, 64)
    for embedding in tokenizer:
        initialize(embedding, 0)
    found = forest()
    tokens = tokenizer.double()(evidence(torch.randn(3, 4, 16, 32).double()), found, TokenShard(0, found.num_tokens, 0))
    assert tokens.shape == (3, found.num_tokens, 64)
    assert tokens.var().item() == pytest.approx(1.0, rel=0.25)


def test_ranks_shares_are_the_whole():
    torch.manual_seed(0)
    tokenizer = Tokenizer(CHANNELS, (8, 4, 2), 1, 6).double()
    for parameter in tokenizer.parameters():
        torch.nn.init.normal_(parameter)
    found, given = forest(flow(2)), evidence(flow(2))
    whole = tokenizer(given, found, TokenShard(0, found.num_tokens, 0))
    length = -(-found.num_tokens // 5)
    numbers = torch.nn.functional.pad(torch.arange(1, found.num_tokens + 1), (0, 5 * length - found.num_tokens))
    parts = [tokenizer(given, found, TokenShard.of_numbers(part)) for part in numbers.split(length)]
    assert {part.shape[1] for part in parts} == {length}
    joined = torch.cat(parts, dim=1)
    torch.testing.assert_close(joined[:, : found.num_tokens], whole)
    assert not joined[:, found.num_tokens :].any()
    assert TokenShard.of_numbers(torch.zeros(3, dtype=torch.int64)) == TokenShard(0, 0, 3)


def test_winds_turn_at_the_walls_that_they_blow_against():
    fields = flow(1)
    around = evidence(fields, BOX).padded((1, 1, 1, 1))
    signs = torch.tensor([1.0, 1.0, -1.0, 1.0])[:, None]
    torch.testing.assert_close(around[0, :, 0, 1:-1], signs * fields[0, :, 0])
    torch.testing.assert_close(around[0, :, -1, 1:-1], signs * fields[0, :, -1])
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0])[:, None]
    torch.testing.assert_close(around[0, :, 1:-1, 0], signs * fields[0, :, :, 0])


@pytest.mark.parametrize("kind", [Boundary.of("open", "wall"), BOX])
def test_only_tokens_at_the_edge_see_the_boundary(kind):
    torch.manual_seed(0)
    tokenizer = Tokenizer(CHANNELS, (8, 4, 2), 1, 6).double()
    for parameter in tokenizer.parameters():
        torch.nn.init.normal_(parameter)
    fields = flow()
    found = forest(fields)
    share = TokenShard(0, found.num_tokens, 0)
    one, other = (tokenizer(evidence(fields, each), found, share) for each in (CHANNEL_FLOW, kind))
    differs = (one - other).abs().amax(-1)[:, :8].view(2, 2, 4) > 1e-9
    assert differs[:, :, [0, -1]].all()
    assert not differs[:, :, 1:-1].any()


def test_angles_are_places_in_the_domain_whatever_the_resolution():
    coarse, fine = forest(flow(2)), forest(flow(2, 32, 64), patch_size=16)
    periodic = torch.tensor([[False, True], [True, False]])
    one, other = patch_angles(coarse, periodic), patch_angles(fine, periodic)
    for axis in ("z", "x"):
        torch.testing.assert_close(one[axis][:, :8], other[axis][:, :8])
    torch.testing.assert_close(one["x"][0, :4], torch.tensor([1, 3, 5, 7]).double() * math.pi / 4)
    torch.testing.assert_close(one["x"][1, :4], torch.tensor([1, 3, 5, 7]).double() * math.pi / 8)
    torch.testing.assert_close(one["z"][0, [0, 4]], torch.tensor([1, 3]).double() * math.pi / 4)
    level = coarse.levels[1]
    children = one["x"][:, 8 : 8 + level.num_tokens].unflatten(1, (-1, 4)).mean(-1)
    torch.testing.assert_close(children, one["x"][:, :8].gather(1, coarse.levels[0].refined))
