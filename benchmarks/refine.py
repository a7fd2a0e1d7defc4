"""Models that correct a solver, and others, beside the solver itself at several resolutions: error and cost of a step.

    python scripts/simulate.py domain=fluids cases=[collision,density,thermal,mixed] nx=512 nz=256 coarsen=4 \\
        count=8 frames=21 seed=77 out=test.nc
    python benchmarks/refine.py test.nc RUN ...

The truth is a finer simulation, averaged to the views that all start from. VRMSE is the mean over flows, starts and
variables. Steps are of 20 s and one sample; costs are median CPU ms, measured in turn, of solvers by the kernel in C++
and in plain torch. A grid finer than the views starts from views that are interpolated without changing their means.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from domains.fluids.data.batch import FlowBatch, FlowPart
from domains.fluids.refine.coarse_solver import CoarseSolver
from domains.fluids.refine.grids import prolong, restrict
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run

ROUNDS = 7
Step = Callable[[FlowPart], Tensor]


def solver_step(part: FlowPart, dx: float, dz: float, factor: float, native: bool) -> Step:
    """Returns a step of the solver on a grid coarser by a factor; one of 0.5 is finer by two."""
    if factor >= 1:
        solver = CoarseSolver(dx, dz, int(factor), 20.0, native=native)
        return lambda p: solver(p.state, p.profiles, p.steps[:, 0], p.flows if p.flows and p.flows[0] else None)
    finer = round(1 / factor)
    solver = CoarseSolver(dx / finer, dz / finer, 1, 20.0, native=native)
    states: dict[int, Tensor] = {}

    def step(p: FlowPart) -> Tensor:
        profiles = p.profiles.repeat_interleave(finer, -1)
        if float(p.lead_time[0]) == 0:
            states[0] = prolong(p.state, finer)
        states[0] = solver(states[0], _smoothed(profiles, finer), p.steps[:, 0])
        return restrict(states[0], finer)

    return step


def _smoothed(profiles: Tensor, finer: int) -> Tensor:
    """Interpolates profiles that were repeated, linearly between the middles of cells."""
    coarse = profiles[..., ::finer]
    rows = torch.arange(profiles.shape[-1], dtype=profiles.dtype)
    at = (rows + 0.5) / finer - 0.5
    low = at.floor().clamp(0, coarse.shape[-1] - 2).long()
    return coarse[..., low] + (at - low) * (coarse[..., low + 1] - coarse[..., low])


def errors_of(step: Step, parts: list[FlowPart], leads: tuple[int, ...]) -> list[float]:
    """Returns mean VRMSE after some numbers of steps."""
    found: dict[int, list[float]] = {lead: [] for lead in leads}
    for start in parts:
        part = start
        for lead in range(1, max(leads) + 1):
            with torch.no_grad():
                state = step(part)
            if lead in leads:
                truth = part.targets[:, 0]
                variance = truth.var((2, 3), unbiased=False)
                found[lead] += ((state - truth).square().mean((2, 3)) / variance).sqrt().flatten().tolist()
            part = part.advance(state) or part
    return [float(np.mean(values)) for values in found.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth")
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--leads", type=int, nargs="+", default=[1, 5, 10])
    args = parser.parse_args()
    torch.set_num_threads(1)
    overrides = {"data.path": args.truth, "data.splits": {"train": 0, "valid": 0, "test": 1},
                 "task.score_frames": list(args.leads)}  # fmt: skip
    runs = {Path(name).name: load_run(RunFolder(Path(name)), overrides=overrides) for name in args.runs}
    first = next(iter(runs.values()))
    source = first.splits.test
    starts = [source.sample(n, np.random.default_rng(0)) for n in range(len(source))]
    parts = [next(iter(source.collate(starts[n : n + 4]).parts.values())) for n in range(0, len(starts), 4)]
    name, data_set = next(iter(first.splits.schema.data_sets.items()))
    rows, columns = data_set.shape

    def model_step(run) -> Step:
        return lambda part: run.task.predict(run.model, FlowBatch({name: part})).values[name]

    steps: dict[str, dict[str, Step]] = {}
    for factor in (4, 2, 1, 0.5):
        label = f"solver {round(columns / factor)}x{round(rows / factor)}"
        steps[label] = {
            kind: solver_step(parts[0], data_set.dx, data_set.dz, factor, kind == "kernel")
            for kind in ("kernel", "plain torch")
        }
    for label, run in runs.items():
        steps[label] = {"kernel": model_step(run)}
    one = replace(parts[0], state=parts[0].state[:1], previous=parts[0].previous[:1], initial=parts[0].initial[:1],
                  steps=parts[0].steps[:1], lead_time=parts[0].lead_time[:1], profiles=parts[0].profiles[:1],
                  targets=None, steady=None, flows=parts[0].flows[:1])  # fmt: skip
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(ROUNDS + 1):
        for label, kinds in steps.items():
            for kind, step in kinds.items():
                begun = time.process_time()
                with torch.no_grad():
                    step(one)
                if number:
                    times.setdefault((label, kind), []).append(time.process_time() - begun)
    for label, kinds in steps.items():
        errors = " ".join(f"{error:.4f}" for error in errors_of(kinds["kernel"], parts, tuple(args.leads)))
        costs = ", ".join(f"{kind} {1e3 * float(np.median(times[label, kind])):.1f} ms" for kind in kinds)
        print(f"{label:20s} {errors}   {costs}", flush=True)


if __name__ == "__main__":
    main()
