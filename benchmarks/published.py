"""Puts published training runs through the planner: predicted over published throughput, and whether memory fits.

    python benchmarks/published.py [-v] [FILE ...]

Without files: the runs of ``benchmarks/published_runs.json``, with their sources. The efficiencies of H100 and A100 in
``conf/cluster`` are fitted to two thirds of these; every third is held out.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciml.app.plan import PlanConfig, constraints_of, facts_of
from sciml.core.config import build
from sciml.planning.search import Search
from sciml.planning.strategy import TrainingSpec
from sciml.run.compose import compose
from sciml.run.spec import RunSpec

DEVICES = {
    "h100": ["cluster=h100"],
    "h100_titan": ["cluster=h100", "cluster.memory_gb=102", "cluster.memory_gb_per_s=2400"],
    "a100_80_dgx": ["cluster=a100_80_dgx"],
    "a100_40": ["cluster=a100_80_dgx", "cluster.memory_gb=42.4", "cluster.memory_gb_per_s=1555"],
}
"""Overrides of a plan for each device that runs name."""
GIB = 2**30
HELD_OUT = 3
"""Every so many runs one is held out of the fit."""


@dataclass(frozen=True)
class Result:
    """Compares a run with its plan; rates are tokens a second and device, memory is in GiB."""

    name: str
    predicted: float
    published: float
    memory: float
    room: float
    published_memory: float | None
    parts: dict[str, float]
    memory_parts: dict[str, float]
    seconds: float

    @property
    def ratio(self) -> float:
        return self.predicted / self.published

    @property
    def fits(self) -> bool:
        return self.memory <= self.room


def overrides(run: dict[str, Any]) -> list[str]:
    """Returns the arguments of ``plan.py`` that describe a run."""
    keys = {
        key: value
        for key, value in run.items()
        if key.partition(".")[0] in ("model", "trainer", "parallel", "optim") and "." in key
    }
    precision = run.get("precision", "bf16")
    words = [f"{key}={json.dumps(value)}" for key, value in keys.items()]
    return [
        "domain=language", "model=gpt_small", "search=false", "optim.ema_decay=null", "model.dropout=0",
        f"trainer.precision={precision}", f"devices={run['gpus']}", *DEVICES[run["device"]], *words,
    ]  # fmt: skip


def plan_of(run: dict[str, Any]) -> Result:
    """Plans a run as it was carried out."""
    began = time.process_time()
    composition = compose("plan", overrides(run))
    own = {name for name in PlanConfig.__dataclass_fields__}
    values = composition.config
    config = build(PlanConfig, {name: value for name, value in values.items() if name in own})
    experiment = RunSpec.build({n: v for n, v in values.items() if n not in own} | {"output": config.output})
    constraints = constraints_of(config, experiment, composition.overrides)
    training = TrainingSpec.of(experiment.trainer, experiment.optim)
    facts = facts_of(experiment, config.cluster)
    search = Search(facts, config.cluster, training, constraints, config.efficiency, config.margin)
    strategy = next(iter(search.space().strategies(config.devices)))
    memory, step = search.memory.of(strategy), search.throughput.of(strategy)
    tokens = training.global_batch * run["model.context"] / step.total / run["gpus"]
    return Result(
        run["id"],
        tokens,
        run["tokens_per_s_and_gpu"],
        memory.total / GIB,
        config.cluster.memory / GIB,
        run.get("memory_gib"),
        {name: value / step.total for name, value in step.parts().items()},
        {name: value / GIB for name, value in memory.parts().items()},
        time.process_time() - began,
    )


def summary(name: str, results: list[Result]) -> str:
    """Returns how well some runs are met."""
    mean = math.exp(sum(math.log(result.ratio) for result in results) / len(results))
    within = sum(abs(result.ratio - 1) <= 0.2 for result in results)
    fits = sum(result.fits for result in results)
    return f"{name}: geometric mean {mean:.2f}, within 20%: {within} of {len(results)}, said to fit: {fits}"


def main() -> None:
    """Prints a table and the figures that sum it up."""
    verbose = "-v" in sys.argv
    files = [Path(name) for name in sys.argv[1:] if name != "-v"] or [Path(__file__).with_name("published_runs.json")]
    runs = [run for file in files for run in json.loads(file.read_text())["runs"]]
    results = []
    print(f"{'run':34}{'predicted':>10}{'published':>10}{'ratio':>7}  memory, GiB; published")
    for run in runs:
        result = plan_of(run)
        results.append(result)
        fits = "" if result.fits else "does not fit"
        known = result.published_memory or ""
        print(
            f"{result.name:34}{result.predicted:10.0f}{result.published:10.0f}{result.ratio:7.2f}"
            f"{result.memory:8.1f} of {result.room:5.1f} {known:>5} {fits}",
            flush=True,
        )
        if verbose:
            print("     ", {k: round(v, 3) for k, v in result.parts.items()})
            print("     ", {k: round(v, 1) for k, v in result.memory_parts.items()})
    print(summary("all", results))
    if len(results) > HELD_OUT:
        held = results[HELD_OUT - 1 :: HELD_OUT]
        print(summary("fitted to", [result for result in results if result not in held]))
        print(summary("held out", held))


if __name__ == "__main__":
    main()
