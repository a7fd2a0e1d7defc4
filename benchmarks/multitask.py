"""Several properties by one model, beside a model for each (experiment=hea_multitask).

    python benchmarks/multitask.py                # about ten minutes on two cores
    python benchmarks/multitask.py --seeds 3      # means and standard deviations over seeds

The models are of one size and see as many structures of a property's data set, so a single one trains for fewer steps.
Errors are those on the test split, whose structures no model has seen; `composition` is what elements alone tell.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile

from finetune import script

EXPERIMENT = "experiment=hea_multitask"
DATA_SETS = {"mixing_enthalpy": "eam", "eam_density": "eam", "magnetic_moments": "chgnet"}


def errors(overrides: list[str], seed: int, runs: str) -> dict[str, dict]:
    """Returns the mean absolute errors on the test split, by property."""
    rows = script("train", EXPERIMENT, f"seed={seed}", f"runs_dir={runs}", "trainer.num_threads=1", *overrides)[
        "scores"
    ]
    return {row["variable"]: row for row in rows if row["metric"] == "mae"}


def single(name: str, steps: int) -> list[str]:
    """Returns the overrides of a model of one property alone; it draws from its own data set only, as often as
    the joint model does.
    """
    from sciml.run.compose import compose

    shares = compose("train", [EXPERIMENT]).config["data"]["shares"]
    mine = DATA_SETS[name]
    # the other data set stays in the store, so that splits and elements are the same
    drawn = [f"data.shares.{data_set}={float(data_set == mine)}" for data_set in shares]
    others = [f"~task.targets.{other}" for other in DATA_SETS if other != name]
    return [*others, *drawn, f"trainer.max_steps={round(steps * shares[mine])}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1200, help="of the joint model")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {name: {"together": [], "alone": []} for name in DATA_SETS}
    baseline, units = {}, {}
    with tempfile.TemporaryDirectory() as runs:
        for seed in range(arguments.seeds):
            together = errors([f"trainer.max_steps={arguments.steps}"], seed, runs)
            for name in DATA_SETS:
                alone = errors(single(name, arguments.steps), seed, runs)
                found[name]["together"].append(together[name]["value"])
                found[name]["alone"].append(alone[name]["value"])
                baseline[name], units[name] = together[name]["baseline"]["composition"], together[name]["unit"]
    print(f"{'MAE on the test split':<34}{'together':>18}{'alone':>18}{'composition':>14}")
    for name, columns in found.items():
        cells = "".join(f"{spread(values):>18}" for values in columns.values())
        print(f"{name + ', ' + (units[name] or 'a. u.'):<34}{cells}{baseline[name]:>14.4g}")


def spread(values: list[float]) -> str:
    """Returns the mean, and the standard deviation where there are several values."""
    text = f"{statistics.mean(values):.4g}"
    return f"{text} ({statistics.stdev(values):.2g})" if len(values) > 1 else text


if __name__ == "__main__":
    main()
