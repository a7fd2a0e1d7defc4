"""What a training step sends along each axis of the mesh is what the published formulas say: calls and bytes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from sciml.distributed.communication import CommunicationVolume, Count
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.models.vit import Block
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.training.engine import NativeEngine
from tests.distributed.cases import GLOBAL_BATCH, MICRO_BATCH, OPTIMIZERS, FieldTask, fields, share, vit
from tests.distributed.test_parity import size_of

DEPTH, DIM, CONDITION = 4, 16, 8
TOKENS = 15  # 3 x 5 patches
HIDDEN = 2  # linears of the head
PIXELS = 12  # three variables, patches of 2 x 2
FLOAT32 = 4

MEANS = 3 * 8  # loss, its one part and the weight, in double precision
PARTIAL = re.compile(r"embedding|position|condition|modulation|project|(out|wo|down)\.bias")
"""Parameters that every rank of ``tp`` holds whole, and applies to its tokens or heads only."""

CUT = re.compile(r"score|value|hidden|w[qkv]|up|query_norm|key_norm|(out|wo|down)\.weight")
"""Those that are cut over ``tp``."""


@dataclass(frozen=True)
class Step:
    """One rank's training step, in the words of the formulas."""

    config: ParallelConfig
    rank: int
    recompute: str = "none"

    def size(self, *axes: str) -> int:
        return size_of({axis: getattr(self.config, axis) or 1 for axis in axes})

    def label(self, *axes: str) -> str:
        """Name of communication along some axes."""
        return "_".join(axis for axis in axes if self.size(axis) > 1)

    @property
    def micro_batches(self) -> int:
        return GLOBAL_BATCH // self.size("dp", "shard") // MICRO_BATCH

    @property
    def tokens(self) -> int:
        """Tokens of a sample, filled up so that the ranks divide them."""
        ranks = self.size("cp", "sp", "tp")
        return -(-TOKENS // ranks) * ranks

    @property
    def stage(self) -> int:
        """Place in the pipeline, the outermost axis."""
        return self.rank // self.size("dp", "shard", "cp", "sp", "tp")

    @property
    def is_first(self) -> bool:
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        return self.stage == self.config.pp - 1

    @property
    def blocks(self) -> int:
        return DEPTH // self.config.pp

    @property
    def forwards(self) -> int:
        """How often a block talks forward for one backward pass: collectives are computed again with all else."""
        return 1 if self.recompute == "none" else 2

    def parameters(self) -> dict[str, torch.Size]:
        """Shapes of this rank's parameters before they are sharded."""
        shapes = {}
        for name, parameter in vit().named_parameters():
            part = re.search(r"blocks\.(\d+)", name)
            held = self.is_last if name.startswith(("head", "trunk.modulation")) else self.is_first
            if int(part[1]) // self.blocks == self.stage if part else held:
                rows, *rest = parameter.shape
                shapes[name] = torch.Size([rows // (self.config.tp if CUT.search(name) else 1), *rest])
        return shapes


Calls = Iterator[tuple[str, str, float, float]]
"""Axes, kind of collective, number of calls and bytes of payload of each, as in ``Count``."""


def megatron(step: Step) -> Calls:
    """Tokens cut between cut matrices: attention and MLP each gather them before and reduce-scatter them behind.

    The backward pass mirrors all. An all-gather and a reduce-scatter move on a ring what an all-reduce of b s d
    numbers does, so a block costs four of those: Megatron-LM's volume, 2 b s d bytes each in half precision and
    4 b s d here. What is gathered is not kept but gathered again, however much is computed again; sums over ranks are
    made again where all is, and kept where products are.

    Besides: the tokenizer's scatter, a gather and an exchange of channels for tokens in each hidden layer of the
    head, whose input is gathered again too, the gather of all pixels (whose gradient every rank has), and the gradients
    of what is held whole.

    Source: Shoeybi et al. (2019), https://doi.org/10.48550/arXiv.1909.08053, section 3; Korthikanti et al. (2022),
    https://doi.org/10.48550/arXiv.2205.05198, section 4.2.2.
    """
    t = step.config.tp
    whole = MICRO_BATCH * step.tokens // step.size("cp", "sp") * DIM * FLOAT32
    gathers, sums = 6 * step.blocks, (6 if step.recompute == "full" else 4) * step.blocks
    first, last = float(step.is_first), float(step.is_last)
    yield "tp", "all_gather", step.micro_batches * (gathers + first + 2 * HIDDEN * last), whole / t
    yield "tp", "reduce_scatter", step.micro_batches * (sums + first + HIDDEN * last), whole
    yield "tp", "all_to_all", step.micro_batches * 2 * HIDDEN * last, whole / t
    yield "tp", "all_gather", step.micro_batches * last, whole / DIM * PIXELS / t
    partial_sums = sum(shard_of(step, shape) for name, shape in step.parameters().items() if PARTIAL.search(name))
    yield "tp", "all_reduce", 1, partial_sums * FLOAT32


def ulysses(step: Step) -> Calls:
    """Tokens cut around everything: queries, keys, values and outputs each turn into heads and back by all-to-all.

    Source: Jacobs et al. (2023), https://doi.org/10.48550/arXiv.2309.14509, section 3.2.
    """
    mine = MICRO_BATCH * step.tokens / step.size("cp", "sp") * DIM * FLOAT32
    exchanges = 4 * step.blocks * (step.forwards + 1)
    yield "sp", "all_to_all", step.micro_batches * exchanges, mine / step.config.tp


def around(step: Step) -> Calls:
    """Keys and values go around a ring of ranks, forward and again backward, where their gradients come home besides.

    What is kept is not sent again.

    Source: Liu et al. (2023), https://doi.org/10.48550/arXiv.2310.01889, section 3.
    """
    ranks, repeats = step.config.cp, 2 if step.recompute == "full" else 1
    pair = 2 * MICRO_BATCH * step.tokens / ranks * DIM / step.size("sp", "tp") * FLOAT32
    messages = step.blocks * ((repeats + 1) * (ranks - 1) + ranks)
    for kind in ("send", "recv"):
        yield "cp", kind, step.micro_batches * messages, pair


def pixels(step: Step) -> Calls:
    """The pixels of all tokens are gathered at the end."""
    if axes := step.label("cp", "sp"):
        mine = MICRO_BATCH * step.tokens / step.size("cp", "sp") * PIXELS * FLOAT32
        yield axes, "all_gather", step.micro_batches * float(step.is_last), mine


def pipeline(step: Step) -> Calls:
    """A stage's tokens and the condition cross a boundary once a micro-batch, and their gradients once the other way.

    Of neighboring stages no two are on one rank, so that interleaving v of them multiplies the volume by v.

    Source: Narayanan et al. (2021), https://doi.org/10.48550/arXiv.2104.04473, sections 2.2 and 3.2.
    """
    ranks = step.size("cp", "sp", "tp")
    ways = 2 * step.config.interleave - step.is_first - step.is_last
    for size in (step.tokens // ranks * DIM if ranks > 1 else TOKENS * DIM, CONDITION):
        for kind in ("send", "recv"):
            yield "pp", kind, step.micro_batches * ways, MICRO_BATCH * size * FLOAT32


def replicas(step: Step) -> Calls:
    """Gradients are added once a step, whatever the number of micro-batches: 2 (n - 1)/n of them on a ring.

    Source: Li et al. (2020), https://doi.org/10.48550/arXiv.2006.15704, section 3.
    """
    axes = step.label("dp", "cp", "sp")
    if axes and step.size("shard") == 1:
        yield axes, "all_reduce", 1, sum(shape.numel() for shape in step.parameters().values()) * FLOAT32


def zero(step: Step) -> Calls:
    """Every block, and all else together, is gathered before it is used and its gradient scattered afterwards.

    Stage 1 scatters once a step, 2 and 3 with every micro-batch; stage 3 gathers a block again for the backward
    pass. A gather and a scatter move on a ring what the all-reduce of replicas does; stage 3 moves 1.5 times that.
    Hybrid sharding adds the shards' gradients over replicas, ``sp`` over the ranks with other tokens.

    Source: Rajbhandari et al. (2020), https://doi.org/10.48550/arXiv.1910.02054, section 7; Zhao et al. (2023),
    https://doi.org/10.48550/arXiv.2304.11277, section 3.2.2 (hybrid).
    """
    stage = step.config.zero
    mine: dict[str, float] = defaultdict(float)
    for name, shape in step.parameters().items():
        block = re.search(r"blocks\.\d+", name)
        mine[block[0] if block else "root"] += numel(step, shape) * FLOAT32
    for unit, size in mine.items():
        twice = stage == 3 and unit not in ("root", f"blocks.{DEPTH - 1}")
        gathers = step.micro_batches * (2 if twice else 1) if stage == 3 else 1
        scatters = 1 if stage == 1 else step.micro_batches
        yield "shard", "all_gather", gathers, size
        yield "shard", "reduce_scatter", scatters, size * step.config.shard
        if step.size("dp") > 1:
            yield "dp", "all_reduce", scatters, size
    if axes := step.label("cp", "sp"):
        held = sum(shard_of(step, shape) for shape in step.parameters().values())
        yield axes, "all_reduce", 1, held * FLOAT32


def bookkeeping(step: Step) -> Calls:
    """Sums of a few numbers: means over the batch, and squares of gradients held in parts."""
    data = step.label("dp", "shard")
    if data and step.is_last:
        yield data, "all_reduce", 1, MEANS
    for axis, size in (("shard", 16), ("tp", 8), ("pp", 8)):
        if step.size(axis) > 1:
            yield axis, "all_reduce", 1, size


def numel(step: Step, shape: torch.Size) -> int:
    """Numbers of the largest part of a parameter, to which FSDP2 fills up the others."""
    return -(-shape[0] // step.config.shard) * shape[1:].numel()


def shard_of(step: Step, shape: torch.Size) -> int:
    """Numbers of this rank's own part."""
    place = step.rank // step.size("cp", "sp", "tp") % step.config.shard
    rows = -(-shape[0] // step.config.shard)
    return max(0, min(rows, shape[0] - place * rows)) * shape[1:].numel()


FORMULAS = {"tp": megatron, "cp": around, "sp": ulysses, "pp": pipeline, "shard": zero}


def formula(step: Step) -> dict[str, dict[str, tuple[int, int]]]:
    """Calls and bytes of a step by axes and kind."""
    table: dict[str, Any] = defaultdict(dict)
    parts = [part for axis, part in FORMULAS.items() if step.size(axis) > 1]
    for part in (*parts, pixels, replicas, bookkeeping):
        for axes, kind, calls, size in part(step):
            if calls:
                before = table[axes].get(kind, (0, 0))
                table[axes][kind] = before[0] + calls, before[1] + calls * size
    return dict(table)


def model(recompute: str) -> nn.Module:
    """The small model, computing again what the mode says."""
    module = vit()
    for block in module.modules():
        if isinstance(block, Block):
            block.recompute = recompute
    return module


def measured(world: World, degrees: dict[str, Any], recompute: str) -> dict[str, dict[str, Count]]:
    """What the third step of a training sends; those before also find the shapes of a pipeline and DDP's buckets."""
    task: Any = FieldTask()
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))
    engine = NativeEngine(parallelize(partial(model, recompute), mesh, config, seed=3), OPTIMIZERS["sgd"])
    batches = share(fields(0), mesh)
    for _ in range(2):
        engine.train_step(task, batches, 1e-2)
    with CommunicationVolume(mesh) as traffic:
        engine.train_step(task, batches, 1e-2)
    return traffic.table()


FAST: dict[str, dict[str, Any]] = {
    "tp2": {"tp": 2},
    "sp2": {"sp": 2},
    "cp2": {"cp": 2},
    "pp2": {"pp": 2},
    "dp2": {"dp": 2},
    "zero1": {"shard": 2, "zero": 1},
    "zero2": {"shard": 2, "zero": 2},
    "zero3": {"shard": 2, "zero": 3},
    "pp2-interleaved": {"pp": 2, "schedule": "interleaved", "interleave": 2},
}
SLOW: dict[str, dict[str, Any]] = {
    "tp4": {"tp": 4},
    "sp4": {"sp": 4},
    "cp4": {"cp": 4},
    "cp2-sp2": {"cp": 2, "sp": 2},
    "cp2-tp2": {"cp": 2, "tp": 2},
    "cp2-zero2": {"cp": 2, "shard": 2, "zero": 2},
    "pp4": {"pp": 4},
    "dp4": {"dp": 4},
    "hsdp": {"dp": 2, "shard": 2},
    "tp2-sp2": {"tp": 2, "sp": 2},
    "tp2-pp2": {"tp": 2, "pp": 2},
    "tp2-dp2": {"tp": 2, "dp": 2},
    "tp2-zero3": {"tp": 2, "shard": 2, "zero": 3},
    "sp2-zero2": {"sp": 2, "shard": 2, "zero": 2},
    "pp2-dp2": {"pp": 2, "dp": 2},
}
TRIED = {"none": tuple(FAST), "full": ("tp2", "sp2", "cp2", "zero3"), "selective": ("tp2", "cp2")}
"""Meshes that are tried, by how activations are recomputed."""
SELDOM = {("sp2", "full"), ("cp2", "full"), ("tp2", "selective")}
RUNS = [
    *(
        pytest.param(FAST[name], how, id=f"{name}-{how}", marks=[pytest.mark.slow] if (name, how) in SELDOM else [])
        for how, names in TRIED.items()
        for name in names
    ),
    *(pytest.param(degrees, "none", id=name, marks=pytest.mark.slow) for name, degrees in SLOW.items()),
    pytest.param(SLOW["tp2-sp2"], "full", id="tp2-sp2-full", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("degrees", "recompute"), RUNS)
def test_a_step_sends_what_the_formulas_say(ranks, degrees, recompute):
    config = ParallelConfig(**degrees)
    for rank, table in enumerate(ranks(size_of(degrees)).run(measured, degrees, recompute)):
        if config.pp > 1:  # the last stage tells the others the loss, as an object of some bytes
            means = table["pp"].pop("broadcast")  # its size and itself, with the name of its class
            assert means.calls == 2
            assert means.bytes < 200
        found = {axes: {kind: (c.calls, c.bytes) for kind, c in kinds.items()} for axes, kinds in table.items()}
        assert found == formula(Step(config, rank, recompute))


def test_a_block_on_a_ring_sends_what_four_all_reduces_do_and_gathers_twice_more():
    """The volume that Megatron-LM states, from this file's formula, and Korthikanti's in the backward pass."""
    for t in (2, 4):
        step = Step(ParallelConfig(tp=t), 0)
        sent = sum(
            calls * size * {"all_gather": t - 1, "reduce_scatter": (t - 1) / t}[kind]
            for _, kind, calls, size in list(megatron(step))[:2]
        )
        outside = (1 + HIDDEN) * step.micro_batches  # pairs of a gather and a scatter
        whole = MICRO_BATCH * step.tokens * DIM * FLOAT32
        all_reduce, all_gather = 2 * (t - 1) / t * whole, (t - 1) / t * whole
        again = (2 * DEPTH + HIDDEN) * step.micro_batches
        assert sent == (4 * DEPTH * step.micro_batches + outside) * all_reduce + again * all_gather
