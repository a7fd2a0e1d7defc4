"""From hot metals and cold alloys to hot alloys: how well potentials extrapolate, with a known answer.

    python benchmarks/extrapolation.py out=runs/extrapolation               # all variants, 1,500 steps each
    python benchmarks/extrapolation.py out=runs/extrapolation steps=300 variants=zbl,pair
    python benchmarks/extrapolation.py out=runs/by_chgnet teacher=chgnet model=gnn_small

The structures of the NbMoTaW set (../shared/data/nbmotaw) that hold no Nb are labeled by the EAM: molecular dynamics of
pure metals, elastic strains and surfaces, and binaries that are nearly perfect crystals. The test is 16 three-component
solid solutions of 128 atoms in molecular dynamics at 600 to 1,800 K, whose forces are as large as those of the set's
four-component DFT frames. Each variant is a training by the command line of its own.

CHGNet as the teacher (`pip install chgnet==0.4.2`, in an environment of its own) labels all of the set's metals and a
thousand of its binaries, and hot alloys of all four elements. In their dynamics Nb is Ta, which is as large, since the
EAM does not know it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import units
from ase.build import bulk
from ase.data import atomic_masses
from ase.io import write

from domains.materials.data.batch import collate
from domains.materials.data.neighbors import graph_sample
from domains.materials.data.readers.source import read_structures
from domains.materials.data.structure import Structure
from domains.materials.simulation.eam import evaluate, reach

SHARED = "../shared/data/nbmotaw/nbmotaw_dev.extxyz.xz"
NIOBIUM, TANTALUM = 41, 73
METALS = (42, TANTALUM, 74)
BINARIES = 1000
TEMPERATURES = (600, 1000, 1400, 1800)
STEPS, TIME_STEP, FRICTION = 150, 2 * units.fs, 0.02 / units.fs
VARIANTS = {
    "none": ("model.repulsion=none", "task.baseline=none"),
    "zbl": ("task.baseline=none",),
    "pair": ("task.baseline=pair",),
    "eam": ("task.baseline=eam",),
    "meam": ("task.baseline=meam",),
    "tensornet": ("model.layer=tensornet", "model.num_layers=2", "task.baseline=none"),
}


def labeled(structures: Sequence[Structure]) -> list[Structure]:
    """Labels structures by the EAM."""
    made = []
    for first in range(0, len(structures), 32):
        few = structures[first : first + 32]
        batch = collate([graph_sample(replace(s, labels={}), reach(METALS)) for s in few], dtype=torch.float64)
        result = evaluate(batch)
        forces = np.split(result.forces.numpy(), np.cumsum(batch.num_atoms.numpy())[:-1])
        for number, structure in enumerate(few):
            labels = {
                "energy": result.energy[number].numpy(),
                "forces": forces[number],
                "stress": result.stress[number].numpy(),
            }
            made.append(replace(structure, labels=labels, name=""))
    return made


def labeled_by_chgnet(structures: Sequence[Structure]) -> list[Structure]:
    """Labels structures by CHGNet."""
    from chgnet.model import CHGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    model, made = CHGNet.load(use_device="cpu", verbose=False), []
    for first in range(0, len(structures), 8):
        few = structures[first : first + 8]
        crystals = [AseAtomsAdaptor.get_structure(one.to_atoms()) for one in few]
        for structure, said in zip(few, model.predict_structure(crystals, task="efs"), strict=True):
            energy = float(said["e"]) * len(structure.atomic_numbers)
            labels = {"energy": np.array(energy), "forces": said["f"], "stress": said["s"] * units.GPa}
            made.append(replace(structure, labels=labels, name=""))
    return made


def by_eam() -> tuple[list[Structure], list[Structure]]:
    """Returns what is trained on and tested on."""
    frames = [one for _, one in read_structures(SHARED) if NIOBIUM not in one.elements]
    return labeled(frames), [hot_alloy(kelvin, n, METALS) for n, kelvin in enumerate(TEMPERATURES * 4)]


def by_chgnet() -> tuple[list[Structure], list[Structure]]:
    """Returns what is trained on and tested on."""
    frames = [one for _, one in read_structures(SHARED) if not one.group.endswith("_Test")]
    metals, binaries = ([one for one in frames if len(one.elements) == count] for count in (1, 2))
    chosen = sorted(np.random.default_rng(0).choice(len(binaries), BINARIES, replace=False))
    hot = []
    for n, kelvin in enumerate(TEMPERATURES * 4):
        alloy = hot_alloy(kelvin, n, (*METALS, TANTALUM))
        numbers = alloy.atomic_numbers.copy()
        places = np.random.default_rng(100 + n).permutation(np.flatnonzero(numbers == TANTALUM))
        numbers[places[: len(places) // 2]] = NIOBIUM
        hot.append(replace(alloy, atomic_numbers=numbers))
    return labeled_by_chgnet([*metals, *(binaries[i] for i in chosen)]), labeled_by_chgnet(hot)


TEACHERS = {"eam": by_eam, "chgnet": by_chgnet}


def hot_alloy(kelvin: float, seed: int, metals: Sequence[int]) -> Structure:
    """Returns a random solid solution after some Langevin dynamics."""
    generator = np.random.default_rng(seed)
    atoms = bulk("Mo", "bcc", 3.22, cubic=True).repeat(4)
    atoms.numbers = generator.permutation(np.resize(metals, len(atoms)))
    structure, masses = Structure.from_atoms(atoms), atomic_masses[atoms.numbers][:, None]
    thermal = np.sqrt(units.kB * kelvin / masses)
    velocities = generator.normal(size=(len(atoms), 3)) * thermal
    forces, keep = labeled([structure])[0].labels["forces"], np.exp(-TIME_STEP * FRICTION)
    for _ in range(STEPS):
        velocities = velocities + 0.5 * TIME_STEP * forces / masses
        structure = replace(structure, positions=structure.positions + TIME_STEP * velocities)
        forces = labeled([structure])[0].labels["forces"]
        velocities = velocities + 0.5 * TIME_STEP * forces / masses
        velocities = keep * velocities + np.sqrt(1 - keep**2) * generator.normal(size=velocities.shape) * thermal
    return labeled([structure])[0]


def train(name: str, out: Path, steps: int, teacher: str, model: str) -> dict[str, float]:
    """Trains a variant and returns the test errors."""
    splits = "{train:0.95,valid:0.05,test:0.0}"
    command = [
        sys.executable, "scripts/train.py", "domain=materials", "data=materials_nbmotaw",
        f"data.title=labeled by {teacher}", f"model={model}",
        f"data.path={out}/train.extxyz", f"data.test_path={out}/test.extxyz", f"data.splits={splits}",
        f"data.cache={out}/cache", f"runs_dir={out}", f"run={name}", "task.targets.energy.weight=50", "task.huber=0.1",
        "trainer.global_batch_size=8", f"trainer.max_steps={steps}", f"trainer.valid_every={steps}",
        f"trainer.save_every={steps}", "trainer.valid_samples=50", "optim.lr=1.5e-3", "optim.warmup_steps=200",
        "optim.ema_decay=0.999", "trainer.num_threads=1", *VARIANTS[name], "output=json",
    ]  # fmt: skip
    document = subprocess.run(command, check=True, capture_output=True, text=True, timeout=7200).stdout
    return {s["variable"]: s["value"] for s in json.loads(document.splitlines()[-1])["scores"] if s["metric"] == "mae"}


def main() -> None:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    out, steps = Path(options.get("out", "runs/extrapolation")), int(options.get("steps", 1500))
    teacher, model = options.get("teacher", "eam"), options.get("model", "gnn_tiny")
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "test.extxyz").exists():
        for name, structures in zip(("train", "test"), TEACHERS[teacher](), strict=True):
            write(out / f"{name}.extxyz", [one.to_atoms() for one in structures])
    print("variant      meV/atom   meV/A    GPa")
    for name in options.get("variants", ",".join(VARIANTS)).split(","):
        scores = train(name, out, steps, teacher, model)
        print(f"{name:10}  {scores['energy']:8.1f}  {scores['forces']:7.0f}  {scores['stress']:5.2f}", flush=True)


if __name__ == "__main__":
    main()
