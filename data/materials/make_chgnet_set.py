"""Makes crfeconimn_chgnet.extxyz.xz: Cr-Mn-Fe-Co-Ni alloys labeled by CHGNet, with magnetic moments.

    pip install -e . chgnet==0.4.2          # in an environment of its own
    python data/materials/make_chgnet_set.py OUT.extxyz.xz

CHGNet (Deng et al., 2023, https://doi.org/10.1038/s42256-023-00716-3) is a pretrained potential: the labels are its
predictions and no density-functional results.
"""

from __future__ import annotations

import argparse
import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase.io.extxyz import write_extxyz
from chgnet.model.model import CHGNet
from pymatgen.io.ase import AseAtomsAdaptor

from domains.materials.data.structure import Structure
from domains.materials.simulation.alloys import Family, Recipe, draw
from domains.materials.simulation.simulate import LABEL_DECIMALS, LENGTH_DECIMALS
from sciml.core.files import atomic_file
from sciml.core.progress import track

COUNT, SEED, BATCH = 480, 0, 8
GPA = 1 / 160.21766208  # eV/A^3
DECIMALS = {**LABEL_DECIMALS, "magnetic_moments": 3}
# A, of twelve neighbors (Goldschmidt); they only say around which volume the structures are drawn.
METALLIC_RADII = {"Cr": 1.28, "Mn": 1.27, "Fe": 1.26, "Co": 1.25, "Ni": 1.24}
FCC = Recipe(
    families=(Family("fcc", ("Co", "Cr", "Fe", "Mn", "Ni")),),
    orders=(1, 2, 3, 4, 5),
    supercells=((2, 2, 1), (3, 2, 1), (2, 2, 2)),
    rattle=0.12,
    strain=0.03,
    shear=0.02,
    vacancies=0.1,
    short_range_order=0.3,
)
BCC = replace(FCC, families=(Family("bcc", ("Cr", "Fe", "Mn")),), orders=(1, 2, 3), supercells=((2, 2, 2), (3, 2, 2)))
RECIPES = (FCC, FCC, FCC, BCC)  # in turn


def lattice_constants(symbol: str, lattice: str) -> tuple[float, float]:
    """Of cubes with the volume an atom of close-packed spheres."""
    a = 2 * np.sqrt(2) * METALLIC_RADII[symbol] / (1 if lattice == "fcc" else 2 ** (1 / 3))
    return a, a


def structure(index: int) -> Structure:
    drawn = draw(RECIPES[index % len(RECIPES)], lattice_constants, SEED, index)
    positions, cell = (np.round(lengths, LENGTH_DECIMALS) for lengths in (drawn.positions, drawn.cell))
    return replace(drawn, positions=positions, cell=cell)


def labeled(model: CHGNet, structures: list[Structure]) -> list[Structure]:
    inputs = [AseAtomsAdaptor.get_structure(s.to_atoms()) for s in structures]
    outputs = model.predict_structure(inputs, batch_size=BATCH)
    known = [
        {
            "energy": float(out["e"]) * len(s),
            "forces": out["f"].astype(np.float64),
            "stress": out["s"].astype(np.float64) * GPA,
            "magnetic_moments": out["m"].astype(np.float64),
        }
        for s, out in zip(structures, [outputs] if isinstance(outputs, dict) else outputs, strict=True)
    ]
    return [
        replace(s, labels={name: np.round(value, DECIMALS[name]) + 0.0 for name, value in labels.items()})
        for s, labels in zip(structures, known, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=COUNT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = CHGNet.load(use_device="cpu")
    images = []
    for first in track(range(0, args.count, BATCH), f"Labeling, {BATCH} structures each"):
        some = [structure(index) for index in range(first, min(first + BATCH, args.count))]
        images += [s.to_atoms() for s in labeled(model, some)]
    with atomic_file(args.out) as temporary, lzma.open(temporary, "wt", preset=9) as file:
        write_extxyz(file, images)


if __name__ == "__main__":
    main()
