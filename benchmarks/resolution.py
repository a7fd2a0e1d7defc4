"""Models of flows on grids that they were not trained on: error against resolution, beside persistence.

    python scripts/train.py experiment=fluids_resolutions run=both        # learns from two grids
    python scripts/train.py domain=fluids run=one                         # learns from one
    python benchmarks/resolution.py both=runs/fluids/both one=runs/fluids/one --picture resolution.png

The same held-out flows are simulated on each grid. VRMSE is the mean over variables and flows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from domains.fluids.data.datasets import simulated
from domains.fluids.forecast.baselines import BASELINES, PERSISTENCE
from domains.fluids.forecast.metrics import VRMSE
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.data.loader import evaluation_batches
from sciml.distributed.mesh import Mesh
from sciml.forecast.evaluation import score_baselines, score_model
from sciml.report.style import MODEL_COLOR, UNDECLARED_COLORS, label_of, new_figure, save_png, style_of, suite_style
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run

COLUMNS = (64, 96, 128, 192, 256)
FRAMES = (1, 5, 10)
INTERVAL_S = 20.0
Errors = dict[tuple[str, int, int], float]
"""By model, columns of the grid and frames ahead."""


def mean_vrmse(scores) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for score in scores:
        if score.metric == VRMSE:
            found.setdefault(round(3600 * score.lead_time_h / INTERVAL_S), []).append(score.value)
    return {frames: sum(values) / len(values) for frames, values in found.items()}


def measure(runs: dict[str, Path], count: int, cache: str) -> Errors:
    """Returns the errors of each run as it is, and where it learned from a single grid also through that grid
    (``task.resample``).
    """
    errors: Errors = {}
    for columns in COLUMNS:
        config = SimulateConfig(
            count=count, cases=("collision", "density", "thermal"), nx=columns, nz=columns // 2, frames=11,
            interval=INTERVAL_S, seed=1000,
        )  # fmt: skip
        path = str(simulated(config, cache))
        for name, folder in runs.items():
            run = RunFolder(folder)
            known = run.record["config"]["data"]["path"]
            named = path if not isinstance(known, dict) else {list(known)[-1]: path}
            for resample in (False, True)[: 1 if isinstance(known, dict) else 2]:
                overrides = {
                    "data.path": named,
                    "data.splits": {"train": 0, "valid": 0, "test": 1},
                    "task.score_frames": list(FRAMES),
                    "task.resample": resample,
                }
                loaded = load_run(run, overrides=overrides)
                batches = list(evaluation_batches(loaded.splits.test, batch_size=4, seed=0))
                alone, baselines = Mesh.alone(), loaded.task.baselines()
                scores = {name + "_resampled" * resample: score_model(loaded.task, loaded.model, batches, alone)}
                scores |= score_baselines(loaded.task, batches, alone, baselines)
                for model, rows in scores.items():
                    for frames, value in mean_vrmse(rows).items():
                        errors[model, columns, frames] = value
    return errors


def draw(errors: Errors, path: Path) -> None:
    names = list(dict.fromkeys(name for name, _, _ in errors))
    models = [name for name in names if name != PERSISTENCE.name]
    palette = dict(zip(models[::-1], (MODEL_COLOR, *UNDECLARED_COLORS[1:]), strict=False))
    with suite_style():
        figure = new_figure(11.5, 3.9)
        for axes, frames in zip(figure.subplots(1, len(FRAMES), sharey=True), FRAMES, strict=True):
            for name in names:
                values = [errors[name, columns, frames] for columns in COLUMNS]
                color = palette.get(name, style_of(name, BASELINES).color)
                axes.plot(COLUMNS, values, marker="o", color=color, label=label_of(name))
            axes.set_xscale("log", base=2)
            axes.set_xticks(COLUMNS, [f"{columns}x{columns // 2}" for columns in COLUMNS], rotation=30)
            axes.minorticks_off()
            axes.set_title(f"{frames * INTERVAL_S:g} s ahead")
        figure.axes[0].set_ylim(0, 1.05 * max(errors.values()))
        figure.axes[0].set_ylabel("VRMSE")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        save_png(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--count", type=int, default=12, help="held-out flows on each grid")
    parser.add_argument("--cache", default="data/cache")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs = {name: Path(folder) for name, folder in (run.split("=") for run in args.runs)}
    errors = measure(runs, args.count, args.cache)
    names = list(dict.fromkeys(name for name, _, _ in errors))
    print(f"{'grid':>10s}" + "".join(f"{name:>36s}" for name in names))
    for columns in COLUMNS:
        cells = ["  ".join(f"{errors[name, columns, frames]:.3f}" for frames in FRAMES) for name in names]
        print(f"{columns:>6d}x{columns // 2:<3d}" + "".join(f"{cell:>36s}" for cell in cells))
    if args.picture:
        draw(errors, args.picture)


if __name__ == "__main__":
    main()
