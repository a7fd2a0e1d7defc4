"""Compares a plan's ranking of strategies with what their training steps take on this machine.

    python benchmarks/planned_speed.py
    python benchmarks/planned_speed.py --steps 12 --repeats 2 domain=climate model.embed_dim=256

The machine is measured first (as by ``scripts/doctor.py --measure``), then each strategy trains for a few steps in two
processes of one thread each; of several repeats the fastest counts, since other work on a machine only ever slows it.
Strategies differ in their mesh, schedule, micro-batch, recomputation and precision. Told is Spearman's correlation of
predicted and measured step times, and by how much each prediction errs.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from scipy.stats import spearmanr

from sciml.app.plan import PlanConfig, facts_of
from sciml.parallel.config import ParallelConfig
from sciml.planning.machine import measure_machine
from sciml.planning.search import Search
from sciml.planning.space import SearchConstraints
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.run.compose import compose
from sciml.run.spec import RunSpec
from sciml.tuning.trial import MEASURED, Trial

DEVICES, TIMEOUT_S = 2, 300
MODEL = ("domain=climate", "model.embed_dim=256", "model.num_heads=8", "trainer.global_batch_size=8")
STRATEGIES: tuple[tuple[dict[str, object], int, str, str], ...] = (
    ({"dp": 2}, 4, "none", "fp32"),
    ({"dp": 2}, 4, "none", "bf16"),
    ({"dp": 2}, 1, "none", "fp32"),
    ({"dp": 2}, 4, "full", "fp32"),
    ({"dp": 2}, 1, "full", "bf16"),
    ({"dp": 1, "shard": 2, "zero": 1}, 4, "none", "fp32"),
    ({"dp": 1, "shard": 2, "zero": 3}, 1, "none", "fp32"),
    ({"dp": 1, "shard": 2, "zero": 3}, 4, "full", "bf16"),
    ({"dp": 1, "tp": 2}, 8, "none", "fp32"),
    ({"dp": 1, "tp": 2}, 1, "none", "bf16"),
    ({"dp": 1, "sp": 2}, 8, "none", "fp32"),
    ({"dp": 1, "sp": 2}, 2, "full", "fp32"),
    ({"dp": 1, "pp": 2}, 1, "none", "fp32"),
    ({"dp": 1, "pp": 2}, 4, "none", "fp32"),
    ({"dp": 1, "pp": 2, "schedule": "gpipe"}, 8, "none", "fp32"),
    ({"dp": 1, "pp": 2, "schedule": "gpipe"}, 8, "full", "bf16"),
    ({"dp": 1, "pp": 2, "schedule": "zero_bubble"}, 1, "none", "fp32"),
    ({"dp": 1, "pp": 2, "schedule": "interleaved", "interleave": 2}, 2, "none", "bf16"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("overrides", nargs="*", default=list(MODEL))
    chosen = parser.parse_args()
    cluster = measure_machine(DEVICES, "cpu")
    print(f"{cluster.peak_tflops}  {cluster.memory_gb_per_s:.3g} GB/s  kernel {cluster.kernel_us:.3g} us  "
          f"update {cluster.update_gb_per_s:.3g} GB/s\n"
          f"shard {cluster.shard_us:.3g} and {cluster.shard_update_us:.3g} us  "
          f"{cluster.links['machine']}")  # fmt: skip
    experiment = RunSpec.build(compose("train", chosen.overrides).config)
    training = TrainingSpec.of(experiment.trainer, experiment.optim)
    efficiency = PlanConfig(cluster, DEVICES).efficiency
    search = Search(facts_of(experiment, cluster), cluster, training, SearchConstraints(), efficiency)
    trial = Trial(DEVICES, experiment.trainer.global_batch_size, chosen.steps, TIMEOUT_S)
    strategies = [
        Strategy(ParallelConfig(**mesh), micro, precision, recompute, replace(experiment.engine, name="native"))  # type: ignore[arg-type]
        for mesh, micro, recompute, precision in STRATEGIES
    ]
    fastest: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(chosen.repeats):
            for number, strategy in enumerate(strategies):
                place = Path(folder) / f"{number}-{repeat}"
                result = trial.run([*chosen.overrides, *strategy.overrides()], place)
                if result.state != MEASURED or result.step_s is None:
                    raise RuntimeError(f"{strategy.text}: {result.reason}")
                fastest[number] = min(result.step_s, fastest.get(number, result.step_s))
    predicted = [search.throughput.of(strategy).total for strategy in strategies]
    print(f"{'strategy':<34}{'micro':>5}  {'recompute':<10}{'type':<5}{'planned ms':>11}{'measured':>9}{'ratio':>7}")
    for number, strategy in sorted(enumerate(strategies), key=lambda item: fastest[item[0]]):
        times = predicted[number], fastest[number]
        print(f"{strategy.text:<34}{strategy.micro_batch:>5}  {strategy.recompute:<10}{strategy.precision:<5}"
              f"{1e3 * times[0]:>11.0f}{1e3 * times[1]:>9.0f}{times[0] / times[1]:>7.2f}")  # fmt: skip
    measured = [fastest[number] for number in range(len(strategies))]
    print(f"Spearman's correlation {spearmanr(predicted, measured).statistic:.2f}")


if __name__ == "__main__":
    main()
