"""One rank of a machine of 3,072, built in one process with a process group that only pretends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 120

PROGRAM = """
import math, os, sys
import torch, torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from domains.climate.model.field_model import ClimateFieldModel
from sciml.run.compose import compose
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.models.uvit import UViTConfig
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import cut
from sciml.parallel.stage import stage_bounds

SIZE = 3072
rank = int(sys.argv[1])
dist.init_process_group("fake", rank=rank, world_size=SIZE, store=FakeStore())
world = World(rank, SIZE, torch.device("cpu"))
latitude = [90 - 180 * (i + 0.5) / 128 for i in range(128)]
longitude = [360 * i / 256 for i in range(256)]

def model(*overrides):
    values = compose("train", ["domain=climate", "model=vit_10b", *overrides]).config["model"]
    config = build(UViTConfig, values, prefix="model")
    with torch.device("meta"):
        return ClimateFieldModel(config, [f"v{i}" for i in range(48)], latitude=latitude, longitude=longitude)

def one_rank(whole, **degrees):
    parallel = ParallelConfig(**degrees)
    mesh = Mesh(world, parallel.degrees(SIZE))
    shapes = {name: p.shape for name, p in whole.named_parameters()}
    depth = len(whole.net.trunk.blocks)
    found = cut(whole, mesh, parallel)
    bounds = stage_bounds(depth, parallel.num_stages)
    place = mesh.rank("pp")
    own = [f"net.trunk.blocks.{i}." for i in range(bounds[place], bounds[place + 1])]
    first, last = place == 0, place == parallel.pp - 1
    before = ("stem.", "position.", "condition.", "down.", "coarsen.", "enter.")
    behind = ("trunk.norm", "trunk.modulation", "leave.", "refine.", "merge.", "up.", "norm.", "head.")
    ends = tuple(f"net.{name}" for name in before * first + behind * last)
    expected = {name for name in shapes if name.startswith((*own, *ends))}
    got = dict(found.named_parameters())
    assert set(got) == expected, set(got) ^ expected
    for name, parameter in got.items():
        shape = list(shapes[name])
        if name in found.cut_dims:
            shape[found.cut_dims[name]] //= parallel.tp
        assert list(parameter.shape) == shape and parameter.is_meta, name
    block = got[f"{own[0]}attention.wq.weight"]
    assert block.shape[0] * parallel.tp == block.shape[1]
    replicas = dist.get_process_group_ranks(mesh.group("dp"))
    assert len(replicas) == parallel.dp and {other - rank for other in replicas} <= set(range(-SIZE, SIZE, 8))
    neighbors = [rank // 8 * 8 + i for i in range(8)]
    assert dist.get_process_group_ranks(mesh.group("tp")) == neighbors  # inside a node
    return sum(p.numel() for p in got.values()), sum(math.prod(s) for s in shapes.values())

part, whole = one_rank(model("model.depth=64", "model.embed_dim=3456", "model.num_heads=48"), tp=8, pp=64, dp=6)
assert 9e9 < whole < 10e9 and 0.9 < part * 512 / whole < 1.6, (part, whole)
part, whole = one_rank(model(), tp=8, pp=8, dp=48)
assert 8.5e9 < whole < 9.5e9 and 0.5 < part * 64 / whole < 1.5, (part, whole)
try:
    one_rank(model(), tp=8, pp=64, dp=6)
except ConfigError as error:
    assert "64 stages are more than the model's 11 blocks" in str(error) and "at most 11" in str(error)
else:
    raise AssertionError("11 blocks are no 64 stages")
print("done")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("rank", [3071, *(pytest.param(rank, marks=pytest.mark.slow) for rank in (0, 1571))])
def test_ranks_of_3072_hold_their_parts(tmp_path: Path, rank: int) -> None:
    script = tmp_path / "dry_run.py"
    script.write_text(PROGRAM)
    command = [sys.executable, "-W", "ignore", str(script), str(rank)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.stdout == "done\n", done.stderr[-2000:]
