"""Scores a trained weather model on some starts of its test period: errors, spread, power by wavenumber, ranks.

``evaluate.py`` does it on all of them, beside the baselines.

    python benchmarks/climate_ensemble.py RUN [STARTS] [CHECKPOINT]
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run

LEADS = (24.0, 72.0, 120.0)
SHOWN = ("rmse", "crps", "spread_skill", "rank_histogram", "power")


def scores_on(run_name: str, starts: int, checkpoint: str) -> list[dict]:
    """Returns the scores of forecasts from starts that are spread evenly over the test period."""
    run = load_run(RunFolder.find(run_name, "runs"), checkpoint=checkpoint)
    source, metrics = run.splits.test, run.task.metrics()
    for lead in LEADS:
        cases = [number for number in range(len(source)) if source.paths[source._pairs[number][1]][-1] == lead]
        for number in np.linspace(0, len(cases) - 1, starts).round().astype(int):
            batch = source.collate([source.sample(cases[number], np.random.default_rng(cases[number]))])
            with torch.no_grad():
                metrics.update(run.task.predict(run.model, batch), batch)
    return [score.to_row() for score in metrics.compute()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, count, checkpoint = [*sys.argv[1:], *("", "24", "best")[len(sys.argv) - 1 :]]
    rows = scores_on(name, int(count), checkpoint)
    print(json.dumps(rows))
    for lead in LEADS:
        for metric in SHOWN:
            chosen = [row for row in rows if (row["metric"], row["lead_time_h"]) == (metric, lead)]
            if values := {row["variable"]: row["value"] for row in chosen}:
                mean, z500, t2m = np.mean(list(values.values())), values["z500"], values["t2m"]
                print(f"{lead:g} h {metric}: mean {mean:.3g}, z500 {z500:.4g}, t2m {t2m:.4g}", file=sys.stderr)
