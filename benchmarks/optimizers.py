"""Muon beside AdamW on the default runs, at equal steps and at equal CPU seconds, over several seeds.

    python benchmarks/optimizers.py FOLDER [--domains climate fluids] [--seeds 3] [--share 1.0] [--rates 1e-3 2e-3 5e-3]

trains one run after the other into FOLDER, each on one thread, and prints a table. What is there already is not trained
again, so that an interrupted measurement goes on where it stopped. ``--rates`` trains Muon with some learning rates
first, for a quarter of the steps on the first seed, and takes the best of them; AdamW has the default's.

CPU seconds are those of the whole process. A step's are found from the difference to a run of few steps, so that data,
scoring and report, which are the same for both, do not count; at equal CPU Muon is given as many steps as AdamW's
CPU seconds pay for, with a schedule that ends there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS = {"climate": 600, "fluids": 600}
"""Steps of the default runs, by domain."""
WARM_UP = 50
"""Steps of the default runs' warm-up; shorter runs have less in proportion."""
FEW = 10
"""Steps of a run that shows what everything but the steps costs."""


@dataclass(frozen=True)
class Result:
    """Holds the numbers of a finished training: steps, CPU seconds, and the last line of its validation."""

    steps: int
    cpu_s: float
    loss: float
    skills: dict[str, float]


@dataclass(frozen=True)
class Trial:
    """Describes one training that can be made."""

    domain: str
    optimizer: str
    seed: int
    steps: int
    rate: float | None = None

    @property
    def name(self) -> str:
        """Returns the name of its folder."""
        rate = "" if self.rate is None else f"-lr{self.rate:g}"
        return f"{self.optimizer}{rate}-{self.steps}-seed{self.seed}"

    def result(self, folder: Path) -> Result:
        """Trains, unless that is done, and returns the result."""
        place = folder / self.domain / self.name
        done = place / "cpu.json"
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)
            done.write_text(json.dumps(self._train(folder)))
        rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
        last = [row for row in rows if row["split"] == "valid"][-1]
        skills = {key: value for key, value in last.items() if key.startswith("skill_against_")}
        return Result(self.steps, json.loads(done.read_text()), last["loss"], skills)

    def _train(self, folder: Path) -> float:
        """Trains, and returns the CPU seconds."""
        command = [
            sys.executable,
            str(ROOT / "scripts" / "train.py"),
            f"domain={self.domain}",
            f"optim={self.optimizer}",
            f"seed={self.seed}",
            f"trainer.max_steps={self.steps}",
            "trainer.num_threads=1",
            f"optim.warmup_steps={max(1, round(WARM_UP * self.steps / STEPS[self.domain]))}",
            f"trainer.valid_every={self.steps}",
            f"trainer.save_every={self.steps}",
            f"runs_dir={folder}",
            f"run={self.name}",
            *([] if self.rate is None else [f"optim.lr={self.rate}"]),
            "reference_models=null",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        print("training", self.domain, self.name, file=sys.stderr, flush=True)
        before = os.times()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system


def measure(folder: Path, domain: str, seeds: int, share: float, rates: list[float]) -> list[str]:
    """Returns the rows of a domain's table."""
    steps = round(STEPS[domain] * share)
    tried = {rate: Trial(domain, "muon", 0, steps // 4, rate).result(folder).loss for rate in rates}
    best = min(tried, key=tried.__getitem__) if tried else None
    costs = {}
    for optimizer, rate in (("adamw", None), ("muon", best)):
        few, many = (Trial(domain, optimizer, 0, n, rate).result(folder) for n in (FEW, steps))
        costs[optimizer] = (many.cpu_s - few.cpu_s) / (steps - FEW)
    fewer = round(steps * costs["adamw"] / costs["muon"])
    rows = []
    for label, optimizer, rate, count in (
        ("AdamW", "adamw", None, steps),
        ("Muon, equal steps", "muon", best, steps),
        ("Muon, equal CPU", "muon", best, fewer),
    ):
        found = [Trial(domain, optimizer, seed, count, rate).result(folder) for seed in range(seeds)]
        losses = [result.loss for result in found]
        skills = {key: statistics.mean(result.skills[key] for result in found) for key in found[0].skills}
        text = ", ".join(f"{key.removeprefix('skill_against_')} {value:.3f}" for key, value in skills.items())
        rate_text = "default" if rate is None else f"{rate:g}"
        rows.append(
            f"| {domain} | {label} | {rate_text} | {count} | {costs[optimizer]:.3f} | "
            f"{statistics.mean(losses):.4f} ({min(losses):.4f} to {max(losses):.4f}) | {text} |"
        )
    rates_text = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in tried.items())
    return rows + ([f"\nMuon's rates on {domain}, {steps // 4} steps: {rates_text}\n"] if tried else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where runs are kept")
    parser.add_argument("--domains", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the default runs' steps")
    parser.add_argument("--rates", type=float, nargs="*", default=[], help="learning rates that Muon tries first")
    chosen = parser.parse_args()
    print("| run | optimizer | lr | steps | CPU s a step | validation loss, mean (range) | skill against |")
    print("|---|---|---|---|---|---|---|")
    for domain in chosen.domains:
        for row in measure(chosen.folder.resolve(), domain, chosen.seeds, chosen.share, chosen.rates):
            print(row, flush=True)


if __name__ == "__main__":
    main()
