"""Alloys: energies of structures by the committed model, and one of them relaxed.

A few seconds on a laptop: python docs/examples/materials.py
"""

from pathlib import Path

import ase.io
import matplotlib.pyplot as plt
from ase.optimize import FIRE

import sciml
from sciml.core.installation import located

alloys = ase.io.read(located("data/materials/alloys.extxyz"), ":")

model = sciml.load("models/materials")
predicted = model.predict(alloys)

atoms = alloys[0].copy()
atoms.calc = model.calculator()
relaxation = []
optimizer = FIRE(atoms, logfile=None)
optimizer.attach(lambda: relaxation.append(atoms.get_potential_energy() / len(atoms)))
optimizer.run(fmax=0.02, steps=100)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
labels = [a.get_potential_energy() / len(a) for a in alloys]
energies = [a.get_potential_energy() / len(a) for a in predicted]
left.plot(labels, energies, "o")
left.axline((labels[0], labels[0]), slope=1, color="0.6", linewidth=1)
left.set(title="energy of eight alloys", xlabel="label, eV/atom", ylabel="predicted, eV/atom")
right.plot([1000 * (energy - relaxation[-1]) for energy in relaxation])
right.set(title=f"{atoms.get_chemical_formula()} relaxed by FIRE", xlabel="step", ylabel="above the end, meV/atom")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
