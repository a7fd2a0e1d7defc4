"""A model of several kinds of physics, fine-tuned to one that it has not seen, against training from scratch.

    python benchmarks/foundation.py FOLDER [--left-out shallow_water] [--seeds 3] [--steps 200] [--pretrain 1000]

simulates flows of five kinds, pre-trains one model on all of them but one (``experiment=flow_foundation``), and then
learns the one left out from 1, 4 and 16 flows (``experiment=flow_finetune``): from the pre-trained weights; from
scratch with as many steps, which cost as much; and from scratch for as much CPU time as pre-training and fine-tuning
took together. One thread. What is in FOLDER already is not made again, so that an interrupted measurement goes on.

A seed draws the flows that are learned from, the weights, and the order of samples; the pre-trained model is one for
all seeds. Errors are VRMSE, the mean over variables, on held-out flows that are the same for all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from domains.fluids.forecast.baselines import PERSISTENCE
from domains.fluids.forecast.metrics import VRMSE
from domains.fluids.solver.simulate import simulate
from domains.fluids.solver.simulate_config import MINIWEATHER, SimulateConfig
from sciml.core.config import build
from sciml.data.loader import evaluation_batches
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import join
from sciml.domain.score import Score
from sciml.forecast.evaluation import score_baselines, score_model
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run
from sciml.run.session import TrainingSession
from sciml.run.spec import RunSpec
from sciml.run.start import find_run

KINDS = {
    "weather": {"cases": ["collision", "thermal", "density", "gravity", "injection"]},
    "burgers": {"physics": "burgers"},
    "advection": {"physics": "advection"},
    "vortices": {"physics": "vortices"},
    "shallow_water": {"physics": "shallow_water"},
}
FRAMES = (1, 5, 10)
FEW = (1, 4, 16)
"""Flows to learn the new kind from."""
TEST_SEED, FLOWS_SEED = 1000, 100
BESIDE = 2
"""Flows of a file beside those that are learned from: one for validation, and one for the test that every run has."""

Errors = dict[int, float]
"""By frames ahead."""


@dataclass(frozen=True)
class Flows:
    """Simulates the flows of a measurement into its folder."""

    folder: Path
    nx: int = 64
    nz: int = 32

    def file(self, kind: str, count: int, seed: int) -> Path:
        """Returns a file of flows, simulated unless it is there."""
        path = self.folder / f"{kind}-{count}-seed{seed}.nc"
        if not path.exists():
            values = {"out": str(path), "count": count, "seed": seed, "nx": self.nx, "nz": self.nz, "frames": 21}
            simulate(build(SimulateConfig, {"physics": MINIWEATHER, **values, **KINDS[kind]}))
        return path


@dataclass(frozen=True)
class Result:
    """Holds what is kept of a training: CPU seconds, and errors of the model and of persistence."""

    cpu_s: float
    errors: Errors = field(default_factory=dict)
    persistence: Errors = field(default_factory=dict)


def trained(folder: Path, name: str, arguments: Sequence[str], test: Path | None) -> Result:
    """Trains a run and scores it on other flows, unless that is done, and returns the result."""
    done = folder / "results" / f"{name}.json"
    if not done.exists():
        print("training", name, flush=True)
        run = folder / "fluids" / name
        shutil.rmtree(run, ignore_errors=True)
        cpu_s = _train([f"runs_dir={folder}", f"run={name}", "trainer.num_threads=1", "trainer.device=cpu", *arguments])
        errors = ({}, {}) if test is None else _errors(run, test)
        done.parent.mkdir(exist_ok=True)
        done.write_text(json.dumps([cpu_s, *errors]))
    cpu_s, *found = json.loads(done.read_text())
    return Result(cpu_s, *({int(frames): value for frames, value in errors.items()} for errors in found))


def _train(arguments: Sequence[str]) -> float:
    """Trains without a report, and returns the CPU seconds of the steps."""
    world = join("cpu")
    start = find_run(compose("train", arguments), world)
    session = TrainingSession.start(RunSpec.build(start.config), world)
    before = time.process_time()
    if not session.fit():
        raise SystemExit("interrupted; the same command goes on")
    return time.process_time() - before


def _errors(run: Path, test: Path) -> tuple[Errors, Errors]:
    """Returns the errors of a run's model and of persistence on all flows of a file."""
    overrides = {"data.path": str(test), "data.splits": {"train": 0, "valid": 0, "test": 1}}
    loaded = load_run(RunFolder(run), overrides={**overrides, "task.score_frames": list(FRAMES)})
    batches, alone = list(evaluation_batches(loaded.splits.test, batch_size=16, seed=0)), Mesh.alone()
    persistence = {name: each for name, each in loaded.task.baselines().items() if name == PERSISTENCE}
    (baseline,) = score_baselines(loaded.task, batches, alone, persistence).values()
    return _means(score_model(loaded.task, loaded.model, batches, alone)), _means(baseline)


def _means(scores: Sequence[Score]) -> Errors:
    """Returns means over variables; lead times are in the order of the frames."""
    found: dict[float, list[float]] = {}
    for score in scores:
        if score.metric == VRMSE:
            found.setdefault(score.lead_time_h, []).append(score.value)
    return {frames: statistics.mean(found[at]) for frames, at in zip(FRAMES, sorted(found), strict=True)}


@dataclass(frozen=True)
class Comparison:
    """Compares what a kind of physics is learned from."""

    folder: Path
    left_out: str
    steps: int
    pretrain_steps: int
    pretrain_flows: int
    rate: float | None = None

    def pretrained(self) -> Result:
        flows, kinds = Flows(self.folder / "flows"), [kind for kind in KINDS if kind != self.left_out]
        paths = ", ".join(f"{kind}: {flows.file(kind, self.pretrain_flows, 0)}" for kind in kinds)
        splits = f"data.splits={{train: {self.pretrain_flows - 4}, valid: 2, test: 2}}"
        arguments = ["experiment=flow_foundation", f"data.path={{{paths}}}", splits, *_steps(self.pretrain_steps)]
        return trained(self.folder, self._pretrained_name, arguments, None)

    @property
    def _pretrained_name(self) -> str:
        return f"without-{self.left_out}-{self.pretrain_flows}-{self.pretrain_steps}"

    def fine_tuned(self, count: int, seed: int) -> Result:
        source = [f"init_from={self.folder / 'fluids' / self._pretrained_name}"]
        return self._learned(f"after-{self._pretrained_name}", count, seed, self.steps, source)

    def from_scratch(self, count: int, seed: int, steps: int | None = None) -> Result:
        return self._learned("scratch", count, seed, steps or self.steps, [])

    def as_long_as_both(self, count: int) -> int:
        """Returns the steps from scratch that cost as much as pre-training and fine-tuning together."""
        both = self.pretrained().cpu_s + self.fine_tuned(count, 0).cpu_s
        return round(self.steps * both / self.from_scratch(count, 0).cpu_s)

    def _learned(self, how: str, count: int, seed: int, steps: int, source: list[str]) -> Result:
        flows = Flows(self.folder / "flows")
        arguments = [
            "experiment=flow_finetune",
            f"data.path={flows.file(self.left_out, count + BESIDE, FLOWS_SEED + seed)}",
            f"data.splits={{train: {count}, valid: 1, test: 1}}",
            f"seed={seed}",
            *([] if self.rate is None else [f"optim.lr={self.rate}"]),
            *_steps(steps),
            *source,
        ]
        rate = "" if self.rate is None else f"-lr{self.rate:g}"
        name = f"{self.left_out}-{how}-{count}flows-{steps}{rate}-seed{seed}"
        return trained(self.folder, name, arguments, flows.file(self.left_out, 16, TEST_SEED))


def _steps(steps: int) -> list[str]:
    return [f"trainer.{key}={steps}" for key in ("max_steps", "valid_every", "save_every")]


def row(label: str, results: Sequence[Result]) -> str:
    """Returns a line of the table: means and ranges over seeds, and CPU seconds of a training."""
    cells = []
    for frames in FRAMES:
        values = [result.errors[frames] for result in results]
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.3f}{spread}")
    seconds = statistics.mean(result.cpu_s for result in results)
    return f"| {label} | {len(results)} | {seconds:.0f} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where flows and runs are kept")
    parser.add_argument("--left-out", default="shallow_water", choices=list(KINDS))
    parser.add_argument(
        "--seeds", type=int, default=3, help="of fine-tuning and of scratch with as many steps; else one"
    )
    parser.add_argument(
        "--long", type=int, nargs="*", default=FEW, help="numbers of flows to train on from scratch for as long as both"
    )
    parser.add_argument("--steps", type=int, default=200, help="of fine-tuning")
    parser.add_argument("--pretrain", type=int, default=1000, help="steps of pre-training")
    parser.add_argument("--flows", type=int, default=48, help="flows of each kind of the pre-training")
    parser.add_argument("--rate", type=float, help="learning rate on the new kind; default: the experiment's")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    compared = Comparison(
        chosen.folder.resolve(), chosen.left_out, chosen.steps, chosen.pretrain, chosen.flows, chosen.rate
    )
    print(f"pre-training: {compared.pretrained().cpu_s:.0f} CPU s", flush=True)
    for seed in range(chosen.seeds):
        for count in FEW:
            tuned, scratch = compared.fine_tuned(count, seed), compared.from_scratch(count, seed)
            print(row(f"{count}, fine-tuned", [tuned]), row(f"{count}, scratch", [scratch]), sep="\n", flush=True)
    rows = []
    for count in FEW:
        seeds = range(chosen.seeds)
        rows.append(row(f"{count}, fine-tuned", [compared.fine_tuned(count, seed) for seed in seeds]))
        scratch = [compared.from_scratch(count, seed) for seed in seeds]
        rows.append(row(f"{count}, from scratch, as many steps", scratch))
        if count in chosen.long:
            steps = compared.as_long_as_both(count)
            rows.append(row(f"{count}, from scratch, {steps} steps", [compared.from_scratch(count, 0, steps)]))
    persistence = [f"{scratch[0].persistence[frames]:.3f}" for frames in FRAMES]
    print("\n| flows | seeds | CPU s | " + " | ".join(f"VRMSE after {frames}" for frames in FRAMES) + " |")
    print("|---|---|---|---|---|---|")
    print(*rows, f"| persistence | | | {' | '.join(persistence)} |", sep="\n")


if __name__ == "__main__":
    main()
