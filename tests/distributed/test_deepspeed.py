"""DeepSpeed trains as torch alone does in one process, and each opens the other's checkpoints."""

from __future__ import annotations

import ast
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from domains.climate.model.forecaster import ClimateViT
from sciml.core.errors import RunError
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.domain.protocol import LossOutput
from sciml.parallel.config import ParallelConfig
from sciml.parallel.data import local
from sciml.training.checkpoint import CheckpointStore, read_tensors
from sciml.training.config import TrainerConfig
from sciml.training.ema import WeightAverage
from sciml.training.engine_config import EngineConfig, build_engine
from tests.distributed import cases
from tests.distributed.cases import CASES, GLOBAL_BATCH, MICRO_BATCH, OPTIMIZERS, STEPS

ROOT = Path(__file__).resolve().parents[2]
Setup = tuple[str, dict[str, Any], dict[str, Any]]  # engine, degrees, further options of the engine

DEEPSPEED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dp2": ({"dp": 2}, {}),
    "zero1": ({"shard": 2, "zero": 1}, {}),
    "zero2": ({"shard": 2, "zero": 2}, {}),
    "zero3": ({"shard": 2, "zero": 3}, {}),
    "zero1-offload": ({"shard": 2, "zero": 1}, {"offload": "cpu"}),
    "zero2-offload": ({"shard": 2, "zero": 2}, {"offload": "cpu"}),
    "zero3-offload": ({"shard": 2, "zero": 3}, {"offload": "cpu"}),
    "tp2": ({"tp": 2}, {}),
    "tp2-zero3": ({"tp": 2}, {"zero": 3}),
    "sp2": ({"sp": 2}, {}),
    "sp2-zero3": ({"sp": 2}, {"zero": 3}),
    "pp2": ({"pp": 2}, {}),
    "tp2-dp2": ({"tp": 2, "dp": 2}, {}),
    "tp2-shard2-zero2": ({"tp": 2, "shard": 2, "zero": 2}, {}),
    "tp2-shard2-zero3": ({"tp": 2, "shard": 2, "zero": 3}, {}),
    "sp2-shard2-zero1": ({"sp": 2, "shard": 2, "zero": 1}, {}),
    "pp4": ({"pp": 4}, {}),
    "pp2-dp2": ({"pp": 2, "dp": 2}, {}),
    "pp2-shard2": ({"pp": 2, "shard": 2, "zero": 1}, {}),
    "pp2-tp2": ({"pp": 2, "tp": 2}, {}),
    "pp2-sp2": ({"pp": 2, "sp": 2}, {}),
}
FAST = {
    ("vit", "zero3", "sgd"),
    ("vit", "pp2", "adamw"),
    ("vit", "tp2", "sgd"),
    ("bonds", "zero2", "sgd"),
}


class RolloutTask(cases.FieldTask):
    """Applies the model twice."""

    def loss(self, model: Any, batch: cases.Samples) -> LossOutput:
        def two_steps(fields: torch.Tensor, *rest: Any) -> torch.Tensor:
            return model(fields + model(fields, *rest), *rest)

        return super().loss(two_steps, batch)


def recomputing() -> torch.nn.Module:
    config = replace(cases.vit().config, recompute="full")
    return ClimateViT(config, ["a", "b", "c"], latitude=cases.LATITUDE, longitude=cases.LONGITUDE)


CASES["unrolled"] = cases.Case(cases.vit, RolloutTask(), cases.fields)
CASES["recompute"] = cases.Case(recomputing, cases.FieldTask(), cases.fields)
CASES["forces32"] = cases.Case(cases.Bonds, cases.ForceTask(), cases.atoms)


def size_of(degrees: dict[str, Any]) -> int:
    return math.prod(degrees.get(axis, 1) for axis in ("pp", "dp", "shard", "sp", "tp"))


def make(world: World, case: str, setup: Setup, optimizer: str, precision: str = "fp32") -> Any:
    """An engine as a run would build it."""
    name, degrees, options = setup
    parallel, config = ParallelConfig(**degrees), EngineConfig(name, **options)
    mesh = Mesh(world, config.degrees(parallel, world.size))
    share = GLOBAL_BATCH // mesh.num_data_ranks
    trainer = TrainerConfig(
        global_batch_size=GLOBAL_BATCH, micro_batch_size=min(MICRO_BATCH, share), precision=precision
    )
    model = cases.build(case, mesh, parallel)
    return build_engine(config, model, OPTIMIZERS[optimizer], trainer, CASES[case].task)


def steps(engine: Any, case: str, optimizer: str, numbers: range) -> list[tuple[float, float]]:
    return cases.run_steps(engine, case, engine.mesh, optimizer, numbers)


def train(
    world: World, case: str, setup: Setup, optimizer: str, precision: str = "fp32", number: int = STEPS
) -> list[tuple[float, float]]:
    return steps(make(world, case, setup, optimizer, precision), case, optimizer, range(number))


@lru_cache
def alone(case: str, optimizer: str) -> torch.Tensor:
    """The same training in one process on torch alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = train(World(0, 1, torch.device("cpu")), case, ("native", {}, {}), optimizer)
    torch.set_num_threads(threads)
    return torch.tensor(found, dtype=torch.float64)


def expect(found: list[tuple[float, float]], expected: torch.Tensor, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, rtol=rtol, atol=0)


def _marked(case: str, setup: str, optimizer: str) -> Any:
    return pytest.param(case, setup, optimizer, marks=[] if (case, setup, optimizer) in FAST else [pytest.mark.slow])


PARITY = [_marked("vit", s, o) for s in DEEPSPEED for o in OPTIMIZERS if o != "muon" or "offload" not in s]
PARITY += [_marked("bonds", s, o) for s in ("dp2", "zero1", "zero2", "zero3", "tp2-zero3") for o in ("adamw", "sgd")]
PARITY += [_marked("recompute", s, "sgd") for s in ("zero1", "zero3", "tp2-zero3", "pp2")]
PARITY += [_marked("unrolled", s, "sgd") for s in ("dp2", "zero1", "zero3", "tp2")]
PARITY += [_marked("forces32", s, o) for s in ("dp2", "zero1", "zero2", "tp2") for o in ("adamw", "sgd")]


@pytest.mark.parametrize(("case", "setup", "optimizer"), PARITY)
def test_losses_and_gradient_norms_are_those_of_one_process(ranks, case, setup, optimizer):
    degrees, options = DEEPSPEED[setup]
    for found in ranks(size_of(degrees)).run(train, case, ("deepspeed", degrees, options), optimizer):
        expect(found, alone(case, optimizer))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("setup", ["dp2", "zero2", "zero3", "pp2"])
def test_half_precision_is_that_of_torch_alone(ranks, setup, precision):
    """fp16 starts with a loss scale that overflows, so that steps are left out."""
    degrees, options = DEEPSPEED[setup]
    expected = ranks(2).run(train, "vit", ("native", degrees, {}), "sgd", precision, 8)[0]
    for found in ranks(2).run(train, "vit", ("deepspeed", degrees, options), "sgd", precision, 8):
        for (loss, norm), (right_loss, right_norm) in zip(found, expected, strict=True):
            assert loss == pytest.approx(right_loss, rel=2e-3)
            assert norm == pytest.approx(right_norm, rel=2e-2)


def hand_over(world: World, case: str, writer: Setup, reader: Setup, optimizer: str, folder: str) -> Any:
    """Half of a training, saved; the other half by another engine on another mesh."""
    store = CheckpointStore(Path(folder), world)
    half = STEPS // 2
    first = make(world, case, writer, optimizer)
    found = steps(first, case, optimizer, range(half))
    path = store.save(half, first.state())
    second = make(world, case, reader, optimizer)
    second.load_state(read_tensors(path, second.state()))
    return found + steps(second, case, optimizer, range(half, STEPS))


def _native(**degrees: Any) -> Setup:
    return "native", degrees, {}


def _deepspeed(setup: str) -> Setup:
    return "deepspeed", *DEEPSPEED[setup]


HANDED_OVER = {
    "fsdp to zero3": ("bonds", _native(shard=2, zero=3), _deepspeed("zero3"), True),
    "zero3 to fsdp": ("bonds", _deepspeed("zero3"), _native(shard=2, zero=3), False),
    "dp2 to zero1": ("bonds", _native(dp=2), _deepspeed("zero1"), False),
    "zero2 to tp2": ("vit", _deepspeed("zero2"), _native(tp=2), True),
    "tp2 to zero2-offload": ("vit", _native(tp=2), _deepspeed("zero2-offload"), False),
    "zero3-offload to pp2": ("vit", _deepspeed("zero3-offload"), _deepspeed("pp2"), False),
    "pp2 to tp2": ("vit", _deepspeed("pp2"), _native(tp=2), False),
    "pp2 to pp2": ("vit", _native(pp=2), _deepspeed("pp2"), False),
    "dp2 to dp2": ("vit", _deepspeed("dp2"), _native(dp=2), False),
    "sp2 to dp2": ("vit", _native(sp=2), _deepspeed("dp2"), False),
    "sp2-zero3 to tp2-zero3": ("vit", _deepspeed("sp2-zero3"), _deepspeed("tp2-zero3"), False),
    "tp2 x zero3 to tp2 x fsdp": ("vit", _deepspeed("tp2-shard2-zero3"), _native(tp=2, shard=2, zero=3), False),
    "tp2 x fsdp to pp2 x tp2": ("vit", _native(tp=2, shard=2, zero=3), _deepspeed("pp2-tp2"), False),
    "pp2 x dp2 to tp2 x zero2": ("vit", _deepspeed("pp2-dp2"), _deepspeed("tp2-shard2-zero2"), False),
    "tp2 x zero2 to pp2 x dp2": ("vit", _deepspeed("tp2-shard2-zero2"), _native(pp=2, dp=2), False),
}


def _handed_over(name: str, optimizer: str) -> Any:
    is_fast = HANDED_OVER[name][3] and optimizer == "adamw"
    return pytest.param(name, optimizer, marks=[] if is_fast else [pytest.mark.slow])


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [_handed_over(n, o) for n, c in HANDED_OVER.items() for o in OPTIMIZERS
     if o != "muon" or (c[0] == "vit" and "offload" not in n)],
)  # fmt: skip
def test_each_engine_goes_on_from_the_checkpoints_of_the_other(ranks, tmp_path, name, optimizer):
    case, writer, reader, _ = HANDED_OVER[name]
    for found in ranks(size_of(writer[1])).run(hand_over, case, writer, reader, optimizer, str(tmp_path)):
        expect(found, alone(case, optimizer))


def average_and_go_on(world: World, setup: Setup, folder: str) -> Any:
    """Validation with averaged weights in between, and averages through a checkpoint."""
    engine, native = make(world, "vit", setup, "sgd"), make(world, "vit", ("native", {**setup[1]}, {}), "sgd")
    batch = CASES["vit"].samples(99)
    outputs, found = [], []
    averages = {}
    for trained in (engine, native):
        average = WeightAverage(trained.weights(), decay=0.9)
        for step in range(STEPS):
            found.append(steps(trained, "vit", "sgd", range(step, step + 1))[0])
            average.update(trained.weights(), step)
            if step % 2 == 1:
                with average.applied(trained.weights()), trained.evaluation() as model:
                    outputs.append(CASES["vit"].task.loss(model, batch).loss.item())
                with trained.evaluation() as model:
                    outputs.append(CASES["vit"].task.loss(model, batch).loss.item())
        averages[trained] = average.averages
    half = len(outputs) // 2
    torch.testing.assert_close(torch.tensor(outputs[:half]), torch.tensor(outputs[half:]), rtol=1e-5, atol=0)
    assert outputs[0] != outputs[1]

    store = CheckpointStore(Path(folder), world)
    stored = {name: engine.stored(name, value) for name, value in averages[engine].items()}
    read = read_tensors(store.save(1, stored), {name: native.stored(name, v) for name, v in averages[native].items()})
    for name, value in averages[native].items():
        torch.testing.assert_close(local(read[name]), value, rtol=1e-4, atol=1e-6)
        back = engine.part(name, engine.stored(name, averages[engine][name]))
        assert torch.equal(back, averages[engine][name])
    return found[:STEPS]


@pytest.mark.parametrize(
    "setup", ["zero3", *(pytest.param(s, marks=pytest.mark.slow) for s in ("dp2", "zero2", "pp2"))]
)
def test_averaged_weights_are_validated_and_saved_and_leave_training_as_it_is(ranks, tmp_path, setup):
    for found in ranks(2).run(average_and_go_on, _deepspeed(setup), str(tmp_path)):
        expect(found, alone("vit", "sgd"))


def fail(world: World, setup: Setup) -> list[str]:
    """What is said of a loss and of a gradient that are not finite."""
    said = []
    for number in range(2):
        engine = make(world, "vit", setup, "sgd")
        batches = cases.share(CASES["vit"].samples(0), engine.mesh)
        task: Any = CASES["vit"].task
        if number == 0:
            batches[-1].targets[0] = float("nan")
        else:
            for name, parameter in engine.model.named_parameters():
                if name == "trunk.blocks.3.attention.wo.weight":
                    parameter.register_hook(lambda gradient: gradient * float("inf"))
        before = {name: value.clone() for name, value in engine.weights().items()}
        try:
            engine.train_step(task, batches, 1e-2)
            said.append("nothing")
        except RunError as error:
            said.append(str(error))
        assert all(torch.equal(value, before[name]) for name, value in engine.weights().items())
    return said


@pytest.mark.parametrize(
    "setup", ["zero2", *(pytest.param(s, marks=pytest.mark.slow) for s in ("dp2", "zero3", "pp2"))]
)
def test_what_is_not_finite_is_named_and_changes_nothing(ranks, setup):
    answers = ranks(2).run(fail, _deepspeed(setup))
    assert all("the loss is not finite, first in targets of micro-batch" in loss for loss, _ in answers)
    assert all("the gradient is not finite: " in gradient for _, gradient in answers)
    assert any("'trunk.blocks.3.attention.wo.weight'" in gradient for _, gradient in answers)


ALONE = """
import os, torch
torch.set_num_threads(1)
from tests.distributed.test_deepspeed import train
from sciml.distributed.world import join
print(train(join("cpu"), "vit", ("deepspeed", {}, {"zero": 2}), "sgd"), flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_one_process_needs_no_launcher_and_nothing_is_printed():
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    expect(ast.literal_eval(done.stdout), alone("vit", "sgd"))


def bytes_of_state(world: World, setup: Setup) -> int:
    return sum(local(value).nbytes for value in make(world, "vit", setup, "adamw").state().values())


@pytest.mark.slow
def test_what_is_sharded_is_saved_in_parts(ranks):
    whole = ranks(2).run(bytes_of_state, _deepspeed("dp2"))[0]
    for found in ranks(2).run(bytes_of_state, _deepspeed("zero3")):
        assert found < 0.55 * whole
