"""Degrees: what fits, and what is said of what does not."""

from __future__ import annotations

import itertools

import pytest
import torch

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.distributed.axes import AXES
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.parallel.config import ParallelConfig, check_micro_batches
from sciml.parallel.stage import stage_bounds


def test_dp_takes_what_the_others_leave():
    assert ParallelConfig(tp=2, pp=2).degrees(12) == {"pp": 2, "dp": 3, "shard": 1, "cp": 1, "sp": 1, "tp": 2}


@pytest.mark.parametrize(
    ("options", "processes", "said"),
    [
        ({"tp": 3}, 4, r"parallel.tp: tp 3 does not fit 4 processes.*parallel.tp=(2|4), or start 3 processes"),
        ({"tp": 2, "dp": 4}, 4, r"parallel.dp: dp 4 x tp 2 does not fit 4 .*parallel.dp=2, or start 8"),
        ({"dp": 2}, 1, r"parallel.dp: dp 2 does not fit one process.*parallel.dp=1, or start 2 processes"),
        ({"pp": 3, "tp": 5}, 4, r"parallel.tp: .*start 15 processes"),
    ],
)
def test_misfits_name_a_degree_that_fits(options, processes, said):
    with pytest.raises(ConfigError, match=said):
        ParallelConfig(**options).degrees(processes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tp": 0}, r"parallel.tp must be at least 1, got 0; try parallel.tp=1"),
        ({"zero": 4}, r"parallel.zero must be one of 1, 2, 3, got 4"),
        ({"schedule": "1b1f"}, r"parallel.schedule must be one of .*got '1b1f'; did you mean '1f1b'"),
        ({"pp": 2, "interleave": 2}, r"parallel.interleave: the schedule 1f1b runs one stage a rank"),
        ({"schedule": "interleaved", "interleave": 2}, r"parallel.interleave: there is no pipeline"),
        ({"schedule": "zero_bubble", "pp": 2, "shard": 2}, r"parallel.zero: .*use 2, or parallel.schedule=1f1b"),
    ],
)
def test_contradictions_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        build(ParallelConfig, options, prefix="parallel")


@pytest.mark.parametrize(
    ("options", "count", "said"),
    [
        ({"pp": 4}, 3, "3 micro-batches .* 1f1b on 4 ranks.*has 4 micro-batches"),
        ({"pp": 2, "schedule": "interleaved"}, 5, "5 micro-batches .*has 4 micro-batches"),
    ],
)
def test_a_schedule_says_how_many_micro_batches_it_wants(options, count, said):
    with pytest.raises(ConfigError, match=rf"trainer.micro_batch_size: {said}"):
        check_micro_batches(ParallelConfig(**options), count)


def test_coordinates_are_those_of_ranks_in_order():
    """Each axis of torch's own arrangement of the ranks, against ours."""
    degrees = {"pp": 2, "dp": 3, "sp": 2, "tp": 4}
    ranks = torch.arange(48).view(2, 3, 1, 1, 2, 4)
    for rank in (0, 17, 47):
        mesh = object.__new__(Mesh)
        object.__setattr__(mesh, "world", World(rank, 48, torch.device("cpu")))
        object.__setattr__(mesh, "degrees", {axis.name: degrees.get(axis.name, 1) for axis in AXES})
        place = (ranks == rank).nonzero()[0].tolist()
        assert [mesh.rank(axis.name) for axis in AXES] == place
        assert mesh.data_rank == place[1]
        assert mesh.rank("pp", "tp") == place[0] * 4 + place[5]


def test_a_mesh_of_another_size_than_the_world_is_refused():
    with pytest.raises(ConfigError, match="mesh of 2 processes, and there are 1"):
        Mesh(World(0, 1, torch.device("cpu")), {"tp": 2})


@pytest.mark.parametrize(("blocks", "stages"), [(11, 4), (4, 4), (9, 2), (64, 6), (5, 1)])
def test_stages_share_blocks_evenly_and_the_ends_have_least(blocks, stages):
    bounds = stage_bounds(blocks, stages)
    counts = [after - before for before, after in itertools.pairwise(bounds)]
    assert bounds[0] == 0
    assert bounds[-1] == blocks
    assert max(counts) - min(counts) <= 1
    assert min(counts) in (counts[0], counts[-1])
