"""The items of ``accelerator.py``, each for a process of its own."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerator_checks import attention, checks
from accelerator_models import MODELS, efficiency, memory, utilization
from accelerator_setting import PLAIN, Result, Setting, mean_seconds, start_training
from solver import CELLS, Running

TOLERANCE = {"first": 1e-3, "all": 0.05}
"""How far losses of a job may be from the CPU's, relative: in the first step and in all. Roundings grow."""
JOB_STEPS = {"full": 40, "small": 4}
JOBS = {
    "climate": (),
    "materials": (),
    "language": (),
    "fluids": ("data.simulate.count=3", "data.simulate.frames=12", "data.splits={train: 1, valid: 1, test: 1}"),
}


def solver(setting: Setting) -> Result:
    """Measures the batched solver of the fluids, in plain torch."""
    figures = {}
    for members in (1, 4) if setting.size == "small" else (1, 16, 256):
        running = Running(members, torch.float32, setting.device, "plain torch")
        steps = 2 if setting.size == "small" else 20
        figures[str(members)] = members * CELLS * steps / mean_seconds(partial(running.go, steps), setting, 1) / 1e6
    lines = [f"{members} members: {rate:.3g} million cell-steps/s" for members, rate in figures.items()]
    return lines, figures


def md(setting: Setting) -> Result:
    """Measures molecular dynamics through ASE with the committed potential."""
    # No other item waits for these to be imported.
    from ase import units
    from ase.md.verlet import VelocityVerlet
    from md import hot_alloy

    from domains.materials.inference.calculator import SciMLCalculator

    figures = {}
    cells = {"full": ((3, 3, 3), (5, 5, 10), (10, 10, 10)), "small": ((2, 2, 2),)}[setting.size]
    for shape in cells:
        atoms = hot_alloy(shape)
        run = str(Path(__file__).resolve().parents[1] / "models" / "materials")
        atoms.calc = SciMLCalculator(run, dtype="float32", skin=0.5, device=setting.device.type)
        dynamics = VelocityVerlet(atoms, 2 * units.fs)
        steps = 3 if setting.size == "small" else 20
        figures[str(len(atoms))] = steps / mean_seconds(partial(dynamics.run, steps), setting, 1)
    return [f"{atoms} atoms, float32: {rate:.3g} steps/s" for atoms, rate in figures.items()], figures


def job(domain: str, setting: Setting) -> Result:
    """Trains a default job for some steps on the device and on the CPU, and compares the losses."""
    steps = JOB_STEPS[setting.size]
    arguments = [f"domain={domain}", *JOBS[domain], *PLAIN, f"trainer.max_steps={steps}", "trainer.precision=fp32"]
    losses, rates = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, where in enumerate((setting, replace(setting, device=torch.device("cpu")))):
            training = start_training([*arguments, f"run={number}"], where, folder)
            training.fit()
            rows = [row for row in training.folder.history() if row["split"] == "train"]
            losses.append([row["loss"] for row in rows])
            rates.append(float(np.median([row["samples_per_s"] for row in rows[1:]])))
    relative = [abs(here - there) / abs(there) for here, there in zip(*losses, strict=True)]
    figures = {"losses": losses[0], "cpu_losses": losses[1], "samples_per_s": rates[0], "cpu_samples_per_s": rates[1]}
    text = (
        f"{steps} steps, loss {losses[0][0]:.4f} to {losses[0][-1]:.4f}; from the CPU's it is {relative[0]:.1e} off in "
        f"the first step and {max(relative):.1e} at most (allowed {TOLERANCE['first']:g}, {TOLERANCE['all']:g}); "
        f"{rates[0]:.3g} samples/s, the CPU {rates[1]:.3g}"
    )
    if relative[0] > TOLERANCE["first"] or not max(relative) <= TOLERANCE["all"]:
        return [text], {**figures, "failed": ["loss"]}
    return [text], figures


ITEMS: dict[str, Callable[[Setting], Result]] = {
    "checks": checks, "attention": attention, "memory": memory, "solver": solver, "md": md, "efficiency": efficiency,
    **{name: partial(utilization, name) for name in MODELS}, **{name: partial(job, name) for name in JOBS},
}  # fmt: skip


def main() -> None:
    item, device, size, before, out = sys.argv[1:]
    done = json.loads(Path(before).read_text())["items"] if Path(before).exists() else {}
    index = None if device == "cpu" else torch.accelerator.current_device_index()
    setting = Setting(torch.device(device, index), size, Path(before).parent, done)
    lines, figures = ITEMS[item](setting)
    Path(out).write_text(json.dumps({"lines": lines, "figures": figures}))
    sys.exit(bool(figures.get("failed")))


if __name__ == "__main__":
    main()
