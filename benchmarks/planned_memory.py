"""Compares the memory that a plan predicts for a rank with what ranks of real trainings take on this machine.

    python benchmarks/planned_memory.py
    python benchmarks/planned_memory.py --cases climate-tp2 language-pp2

Each case is trained for a few steps in separate processes on the CPU, one thread each. Measured is by how much a
process's resident memory grows at the most from just before its model is built until the last step is done; told is
the rank that grows most, beside the plan for it. Processes give memory back to the system as soon as they let it go
(``MALLOC_MMAP_THRESHOLD_``), as a device's allocator would not: what is told is bytes of tensors, not of a cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sciml.app.plan import facts_of
from sciml.distributed.launcher import program
from sciml.planning.cluster import ClusterConfig, Link
from sciml.planning.memory import Memory, MemoryModel
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.run.compose import compose
from sciml.run.spec import RunSpec

STEPS, TIMEOUT_S = 3, 600
ROOT = Path(__file__).resolve().parents[1]
CPU = ClusterConfig(
    "cpu", 8, device="cpu", memory_gb=24, memory_gb_per_s=10, peak_tflops={"fp32": 0.05, "bf16": 0.1},
    links={"node": Link(None, 1.0)},
)  # fmt: skip
COMMON = (f"trainer.max_steps={STEPS}", "trainer.num_threads=1", "optim.warmup_steps=1", "trainer.log_every=1")
MODELS = {
    "climate": ("domain=climate", "model.embed_dim=640", "model.depth=8", "model.num_heads=8",
                "trainer.global_batch_size=8"),
    "language": ("domain=language", "model.embed_dim=768", "model.depth=6", "model.num_heads=8", "data.context=128",
                 "trainer.global_batch_size=8"),
    "fluids": ("domain=fluids", "model.embed_dim=512", "model.depth=6", "model.num_heads=8", "data.simulate.count=3",
               "data.simulate.frames=12", "data.splits={train: 1, valid: 1, test: 1}", "data.simulate.nx=128",
               "trainer.global_batch_size=4"),
    "materials": ("domain=materials", "model.num_channels=512", "trainer.global_batch_size=8"),
}  # fmt: skip
CASES: dict[str, tuple[int, tuple[str, ...]]] = {
    "climate-one": (1, ()),
    "climate-tp2": (2, ("parallel.tp=2",)),
    "climate-pp2": (2, ("parallel.pp=2", "trainer.micro_batch_size=2")),
    "climate-zero3": (2, ("parallel.shard=2", "parallel.zero=3", "trainer.micro_batch_size=2")),
    "climate-full": (1, ("model.recompute=full",)),
    "climate-selective-bf16": (1, ("model.recompute=selective", "trainer.precision=bf16")),
    "climate-window": (1, ("model.patch_size=2", "model.square=2", "model.attention=window", "model.embed_dim=320")),
    "climate-window-sp2": (
        2,
        ("model.patch_size=2", "model.attention=window", "model.global_every=4", "parallel.sp=2"),
    ),
    "climate-cp2": (2, ("parallel.cp=2", "model.recompute=selective")),
    "fluids-one": (1, ()),
    "fluids-tp2": (2, ("parallel.tp=2",)),
    "fluids-zero2": (2, ("parallel.shard=2", "parallel.zero=2")),
    "materials-one": (1, ()),
    "materials-dp2": (2, ("parallel.dp=2",)),
    "materials-tp2": (2, ("parallel.tp=2",)),
    "language-one": (1, ()),
    "language-tp2-pp2": (4, ("parallel.tp=2", "parallel.pp=2", "trainer.micro_batch_size=2")),
    "language-pp2-zero1": (4, ("parallel.pp=2", "parallel.shard=2", "parallel.zero=1", "trainer.micro_batch_size=2")),
}


def arguments_of(case: str) -> list[str]:
    return [*COMMON, *MODELS[case.partition("-")[0]], *CASES[case][1]]


def planned(case: str) -> list[Memory]:
    """Returns the planned memory of each stage of the pipeline."""
    world = CASES[case][0]
    experiment = RunSpec.build(compose("train", arguments_of(case)).config)
    degrees = experiment.parallel.degrees(world)
    parallel = replace(experiment.parallel, dp=degrees["dp"])
    micro = experiment.trainer.micro_batch(degrees["dp"] * degrees["shard"])
    recompute = getattr(experiment.model, "recompute", "none")
    strategy = Strategy(parallel, micro, experiment.trainer.precision, recompute, experiment.engine)
    training = TrainingSpec.of(experiment.trainer, experiment.optim)
    model = MemoryModel(facts_of(experiment, CPU), CPU, training)
    return [model.at(strategy, place) for place in range(parallel.pp)]


def measured(case: str) -> dict[int, int]:
    """Returns the measured bytes by rank."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*program(CASES[case][0]), __file__]
        command += ["--rank-of", folder, *arguments_of(case), f"runs_dir={folder}/runs"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=TIMEOUT_S, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return {int(path.stem): json.loads(path.read_text()) for path in Path(folder).glob("*.json")}


def train_as_rank(folder: str, arguments: list[str]) -> None:
    """Trains one rank of a case and measures its memory."""
    from sciml.distributed.world import join
    from sciml.run import session

    before: list[int] = []
    build = session.build_model

    def noted(*args: Any) -> Any:
        _take_what_libraries_take()
        Path("/proc/self/clear_refs").write_text("5")  # the most so far is forgotten
        before.append(_status("VmRSS"))
        return build(*args)

    session.build_model = noted
    world = join("cpu")
    training = session.TrainingSession.start(RunSpec.build(compose("train", arguments).config), world)

    class AtTheLastStep:
        def on_step(self, step: int, record: Any) -> None:
            if step == STEPS:
                (Path(folder) / f"{world.rank}.json").write_text(json.dumps(_status("VmHWM") - before[0]))
                world.barrier()
                sys.stdout.flush()
                os._exit(0)

        def on_validation(self, step: int, record: Any) -> None: ...

        def close(self) -> None: ...

    training.trainer.fit([AtTheLastStep()])


def _take_what_libraries_take() -> None:
    """Starts the threads, kernels and connections that come with the first step, whatever the model."""
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.LayerNorm(64), torch.nn.GELU(), torch.nn.Linear(64, 64)
    )
    optimizer = torch.optim.AdamW(model.parameters())
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is torch.bfloat16):
            model(torch.ones(8, 64)).sum().backward()
    optimizer.step()
    if dist.is_initialized():
        dist.all_reduce(torch.ones(2**16))


def _status(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    chosen = parser.parse_args().cases
    torch.set_num_threads(1)
    print(f"{'case':<24}{'planned MB':>11}{'measured MB':>12}{'ratio':>7}  by part, MB")
    for case in chosen:
        plans, found = planned(case), measured(case)
        per_stage = len(found) // len(plans)
        rank = max(found, key=lambda rank: found[rank])
        plan = plans[rank // per_stage]
        parts = "  ".join(f"{name} {size / 1e6:.0f}" for name, size in plan.parts().items() if size)
        ratio = plan.total / found[rank]
        print(f"{case:<24}{plan.total / 1e6:>11.0f}{found[rank] / 1e6:>12.0f}{ratio:>7.2f}  {parts}", flush=True)


if __name__ == "__main__":
    if "--rank-of" in sys.argv:
        train_as_rank(sys.argv[2], sys.argv[3:])
    else:
        main()
