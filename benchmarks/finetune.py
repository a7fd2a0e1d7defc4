"""Fine-tuning on fifty structures: what is learned, and what is forgotten, with and without replay.

    python benchmarks/finetune.py --run runs/materials/NAME --out docs/images/finetune.png

RUN is a training on the default set (ten metals, EAM-labeled). A user comes with about 50 structures of silver, gold
and platinum, labeled alike. Models are tested on fresh structures of both kinds: RUN itself; one trained on the 50
alone; RUN fine-tuned on the 50, also with its layers frozen, and with changes of rank 4 of its matrices; and RUN
fine-tuned on the 50 with old structures replayed (experiment=materials_finetune).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LABELS = {"forces": "forces, meV/A", "energy": "energy, meV/atom"}
Scores = dict[str, float]


def script(verb: str, *arguments: str) -> dict[str, Any]:
    """Returns a script's output, read as JSON."""
    command = [sys.executable, f"scripts/{verb}.py", *arguments, "output=json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=3600)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def make(folder: Path) -> dict[str, Path]:
    """Makes fifty structures to learn (and a dozen for validation), and fresh ones of both kinds to test."""
    families = {"mine": "families=[fcc:AgAuPt]", "mine_test": "families=[fcc:AgAuPt]", "old_test": "order_strength=0.5"}
    counts = {"mine": (62, 1), "mine_test": (150, 2), "old_test": (200, 3)}
    paths = {}
    for name, (count, seed) in counts.items():
        paths[name] = folder / f"{name}.extxyz"
        script("simulate", "domain=materials", families[name], f"count={count}", f"seed={seed}", f"out={paths[name]}")
    return paths


def errors_on(path: Path, run: str, branch: str | None) -> Scores:
    """Returns the errors of a run on a file."""
    test = f"data.test_path={{{branch}: {path}}}" if branch else f"data.test_path={path}"
    rows = script("evaluate", f"run={run}", test)["scores"]
    return {row["variable"]: row["value"] for row in rows if row["metric"] == "mae"}


def measure(run: str, folder: Path) -> dict[str, dict[str, Scores]]:
    """Returns the errors of each model on each kind of structures."""
    files = make(folder)
    old = json.loads((Path(run) / "run.json").read_text())["config"]["data"]["path"]
    splits = ("data.splits.train=0.81", "data.splits.valid=0.17", "data.splits.test=0.02")
    common = ("domain=materials", f"runs_dir={folder}", "trainer.num_threads=1", *splits)
    alone = f"data.path={files['mine']}"
    source = f"init_from={run}"
    both = (f"data.path.old={old}", f"data.path.mine={files['mine']}", "experiment=materials_finetune")
    tuned = (*common, alone, source, *fine_tuning())
    trained = {
        "the 50 alone": script("train", *common, alone, "trainer.max_steps=400")["run"],
        "fine-tuned": script("train", *tuned)["run"],
        "its layers frozen": script("train", *tuned, "freeze=[encoder.layers.*]")["run"],
        "changes of rank 4": script("train", *tuned, "lora_rank=4")["run"],
        "fine-tuned with replay": script("train", *common, *both, source)["run"],
    }
    found = {"before": {"old": errors_on(files["old_test"], run, None)}}
    for name, path in trained.items():
        several = "replay" in name
        found[name] = {"mine": errors_on(files["mine_test"], path, "mine" if several else None)}
        if name != "the 50 alone":
            found[name]["old"] = errors_on(files["old_test"], path, "old" if several else None)
    return found


def fine_tuning() -> list[str]:
    """Returns the experiment's own steps and rates, for a training that does not start from it."""
    from sciml.run.compose import compose

    values = compose("train", ["experiment=materials_finetune"]).config
    keys = {"trainer": ("max_steps", "valid_every", "save_every"), "optim": ("lr", "warmup_steps", "ema_decay")}
    return [f"{group}.{name}={values[group][name]}" for group, names in keys.items() for name in names]


def draw(found: dict[str, dict[str, Scores]], path: Path) -> None:
    """Draws bars of errors on new and on old structures, for forces and energies."""
    import numpy as np

    from sciml.report.style import GRAY, MODEL_COLOR, new_figure, save_png, suite_style

    colors = {"mine": MODEL_COLOR, "old": GRAY}
    names = {"mine": "new: Ag, Au, Pt", "old": "old: ten other metals"}
    with suite_style():
        figure = new_figure(9.6, 3.8)
        for axes, (label, title) in zip(figure.subplots(1, 2), LABELS.items(), strict=True):
            for place, kind in enumerate(names):
                at = [n for n, one in enumerate(found.values()) if kind in one]
                values = [one[kind][label] for one in found.values() if kind in one]
                bars = axes.bar(np.array(at) + 0.4 * place - 0.2, values, 0.38, color=colors[kind], label=names[kind])
                axes.bar_label(bars, fmt="%.3g", fontsize=8.5)
            axes.set_xticks(range(len(found)), [name.replace(" with ", "\nwith ") for name in found])
            axes.set(title=f"MAE of {title}")
            axes.margins(y=0.1)
            axes.grid(axis="x", visible=False)
        figure.axes[0].legend(loc="upper left")
        save_png(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of a training on the default set")
    parser.add_argument("--out", type=Path, help="where the picture goes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.run, Path(folder))
    print(f"{'':<24}{'new: forces':>14}{'energy':>10}{'old: forces':>14}{'energy':>10}   (meV/A, meV/atom)")
    for name, kinds in found.items():
        cells = [f"{kinds[kind][label]:.1f}" if kind in kinds else "-" for kind in ("mine", "old") for label in LABELS]
        print(f"{name:<24}{cells[0]:>14}{cells[1]:>10}{cells[2]:>14}{cells[3]:>10}")
    if arguments.out:
        draw(found, arguments.out)


if __name__ == "__main__":
    main()
