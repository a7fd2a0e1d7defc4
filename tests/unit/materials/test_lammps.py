"""What LAMMPS is told, by a loop over ghosts that does what its ML-IAP interface does, is what the calculator says."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from ase.build import bulk

from domains.materials.data.neighbors import neighbor_list
from domains.materials.data.structure import Structure, stress_voigt
from domains.materials.inference.calculator import SciMLCalculator
from domains.materials.inference.lammps import FILE
from sciml.app.cli import main
from sciml.core.errors import RunError


class GhostLoop:
    """Local atoms, ghosts around them as images, and pairs in both directions, as LAMMPS has them.

    Attributes:
        forces, virial: what pairs add up to, ghosts' forces added to their atoms.
    """

    def __init__(self, structure: Structure, elements: list[int], cutoff: float):
        near = neighbor_list(structure, cutoff)
        images, self.ghost_of = {}, []
        self.nlocal = len(structure)
        self.pair_i, self.pair_j = near.receivers.astype(np.int32), np.empty(len(near), dtype=np.int32)
        for number, (sender, shift) in enumerate(zip(near.senders, near.shifts, strict=True)):
            key = (int(sender), *shift.tolist())
            if any(shift) and key not in images:
                images[key] = self.nlocal + len(images)
                self.ghost_of.append(int(sender))
            self.pair_j[number] = images[key] if any(shift) else sender
        self.ntotal = self.nlocal + len(images)
        own = np.array([elements.index(z) for z in structure.atomic_numbers])
        self.elems = np.concatenate([own, own[self.ghost_of]]).astype(np.int32)
        self.rij = (
            structure.positions[near.senders] + near.shifts @ structure.cell - structure.positions[near.receivers]
        )
        self.eatoms, self.energy = np.zeros(self.nlocal), None
        self.exchanges = 0

    def forward_exchange(self, given, filled, width):
        assert given.shape == filled.shape == (self.ntotal, width)
        self.exchanges += 1
        filled[:] = torch.cat([given[: self.nlocal], given[self.ghost_of]])

    def reverse_exchange(self, given, filled, width):
        filled[:] = given
        filled[: self.nlocal].index_add_(0, torch.tensor(self.ghost_of), given[self.nlocal :])

    def update_pair_forces(self, pull):
        pull = np.asarray(pull)
        forces = np.zeros((self.ntotal, 3))
        np.add.at(forces, self.pair_i, pull)
        np.add.at(forces, self.pair_j, -pull)
        self.forces = forces[: self.nlocal].copy()
        np.add.at(self.forces, self.ghost_of, forces[self.nlocal :])
        self.virial = -np.einsum("pa,pb->ab", self.rij, pull)


@pytest.fixture(params=["painn", "tensornet with a potential of embedded atoms"])
def exported(request, small_run, tmp_path):
    more = () if request.param == "painn" else ("model.layer=tensornet", "task.baseline=meam")
    run = small_run(*more)
    out = tmp_path / "out"
    main("export", [f"run={run.path}", f"out={out}", "to=lammps"])
    return out


def test_energies_forces_and_stress_are_those_of_the_calculator(exported):
    atoms = bulk("Cu", "fcc", 3.6, cubic=True).repeat((2, 1, 1))
    atoms.numbers = np.random.default_rng(0).choice([28, 29], len(atoms))
    atoms.rattle(0.1, seed=0)
    atoms.set_cell(atoms.cell @ [[1, 0.03, 0], [0, 1.01, 0], [0.02, 0, 0.98]], scale_atoms=True)
    atoms.calc = SciMLCalculator(exported)
    structure = Structure.from_atoms(atoms)
    with (exported / FILE).open("rb") as file:
        model = pickle.load(file)
    assert model.element_types == ["Ni", "Cu"]
    data = GhostLoop(structure, [28, 29], 2 * model.rcutfac)
    assert data.ntotal > 3 * data.nlocal
    model.compute_forces(data)
    assert data.exchanges >= 2  # of scalars and of vectors between two layers
    assert float(data.energy) == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(data.eatoms, atoms.get_potential_energies(), atol=1e-9)
    np.testing.assert_allclose(data.forces, atoms.get_forces(), atol=1e-9)
    assert np.abs(data.forces).max() > 1e-2
    stress = -0.5 * (data.virial + data.virial.T) / structure.volume
    np.testing.assert_allclose(stress_voigt(stress), atoms.get_stress(), atol=1e-9)
    text = (exported / "in.lammps").read_text()
    assert "pair_style mliap unified lammps.pkl 0" in text
    assert "pair_coeff * * Ni Cu" in text


def test_what_cannot_work_is_one_sentence(small_run, tmp_path):
    run = small_run()
    with pytest.raises(SystemExit) as ended:
        main("export", [f"run={run.path}", f"out={tmp_path / 'a'}", "to=gromacs"])
    assert ended.value.code == 2
    assert not (tmp_path / "a").exists()
    main("export", [f"run={run.path}", f"out={tmp_path / 'b'}", "to=lammps"])
    with (tmp_path / "b" / FILE).open("rb") as file:
        model = pickle.load(file)
    with pytest.raises(RunError, match="exchanges no states of ghosts: start it with KOKKOS"):
        model.compute_forces(object())
