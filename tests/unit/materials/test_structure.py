import numpy as np
from ase import Atoms

from domains.materials.data.structure import Structure, stress_matrix, stress_voigt

from .alloy_files import alloy


def test_to_ase_and_back_keeps_everything():
    atoms = alloy(1, group="a", name="x.xyz@3", branch=2)
    structure = Structure.from_atoms(atoms, magnetic_moments=np.arange(8.0), charges=np.ones(8), mixing_enthalpy=0.1)
    back = structure.to_atoms()
    again = Structure.from_atoms(back, mixing_enthalpy=back.info["mixing_enthalpy"])
    assert (again.name, again.group, again.branch) == ("x.xyz@3", "a", 2)
    for name in ("atomic_numbers", "positions", "cell", "pbc"):
        assert np.array_equal(getattr(again, name), getattr(structure, name))
    assert set(again.labels) == set(structure.labels)
    for name, value in structure.labels.items():
        np.testing.assert_array_equal(again.labels[name], value)


def test_labels_are_those_of_ase():
    atoms = alloy(2)
    structure = Structure.from_atoms(atoms)
    assert structure.labels["energy"] == atoms.get_potential_energy()
    np.testing.assert_array_equal(structure.labels["forces"], atoms.get_forces())
    np.testing.assert_array_equal(structure.labels["stress"], atoms.get_stress(voigt=False))


def test_stress_goes_through_voigt_and_back():
    voigt = np.arange(1.0, 7.0)
    matrix = stress_matrix(voigt)
    assert (matrix == matrix.T).all()
    assert (matrix[0, 0], matrix[1, 2], matrix[0, 2], matrix[0, 1]) == (1, 4, 5, 6)
    np.testing.assert_array_equal(stress_voigt(matrix), voigt)


def test_nothing_is_computed_for_atoms_without_results():
    assert Structure.from_atoms(Atoms("Cu")).labels == {}


def test_a_structure_knows_its_composition_and_volume():
    structure = Structure.from_atoms(Atoms("NbTa2", cell=[2, 3, 4], pbc=True))
    assert (structure.formula, structure.elements, len(structure)) == ("NbTa2", (41, 73), 3)
    assert np.isclose(structure.volume, 24)


def test_a_change_of_the_atoms_leaves_the_structure():
    atoms = alloy(0)
    structure = Structure.from_atoms(atoms)
    before = structure.positions.copy()
    atoms.positions += 1
    np.testing.assert_array_equal(structure.positions, before)
