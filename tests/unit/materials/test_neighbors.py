from collections import Counter

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list as ase_neighbor_list

from domains.materials.data.neighbors import neighbor_list
from domains.materials.data.structure import Structure
from sciml.core.errors import DataError


def slab():
    atoms = fcc111("Pt", (2, 2, 3), vacuum=8)
    atoms.pbc = (True, True, False)
    return atoms


def slab_without_third_vector():
    atoms = slab()
    atoms.cell[2] = 0
    return atoms


def skewed():
    atoms = bulk("W", "bcc", 3.16) * (2, 1, 1)
    atoms.set_cell(np.add(atoms.cell.array, [[0, 0, 0], [2.5, 0, 0], [1.7, 2.9, 0]]), scale_atoms=True)
    return atoms


def outside():
    atoms = bulk("Cu", "fcc", 3.6, cubic=True)
    atoms.positions += [[0, 0, 0], [40, 3, 0], [-17, 0, 0], [0, 0, 99]]
    return atoms


def wire():
    atoms = bulk("Cu", "fcc", 3.6, cubic=True) * (1, 1, 3)
    atoms.pbc = (False, False, True)
    return atoms


CELLS = {
    "one atom": lambda: bulk("Cu", "fcc", 3.6),
    "slab": slab,
    "slab without a third vector": slab_without_third_vector,
    "skewed": skewed,
    "molecule": lambda: molecule("C6H6"),
    "outside the cell": outside,
    "wire": wire,
    "one isolated atom": lambda: molecule("H"),
}


@pytest.mark.parametrize("cutoff", [3.0, 6.5])
@pytest.mark.parametrize("kind", CELLS)
def test_edges_are_those_of_ase_edge_for_edge(kind, cutoff):
    atoms = CELLS[kind]()
    receivers, senders, shifts = ase_neighbor_list("ijS", atoms, cutoff)
    expected = Counter(zip(senders.tolist(), receivers.tolist(), map(tuple, shifts.tolist()), strict=True))
    found = neighbor_list(Structure.from_atoms(atoms), cutoff)
    edges = zip(found.senders.tolist(), found.receivers.tolist(), map(tuple, found.shifts.tolist()), strict=True)
    assert Counter(edges) == expected
    assert len(expected) == len(receivers)  # no edge is there twice


@pytest.mark.parametrize("kind", CELLS)
def test_vectors_point_from_the_receiver_to_the_sender_and_have_the_distances(kind):
    structure = Structure.from_atoms(CELLS[kind]())
    found = neighbor_list(structure, 5.0)
    positions = structure.positions
    vectors = positions[found.senders] + found.shifts @ structure.cell - positions[found.receivers]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), found.distances, atol=1e-10)
    assert (np.diff(found.receivers) >= 0).all()


def test_a_cutoff_above_the_cell_takes_all_images():
    found = neighbor_list(Structure.from_atoms(bulk("Cu", "fcc", 3.6)), 8.0)
    near = np.linalg.norm(found.shifts @ bulk("Cu", "fcc", 3.6).cell.array, axis=1)
    assert np.abs(found.shifts).max() > 2
    assert (near < 8).all()
    assert len(found) == len(np.unique(found.shifts, axis=0))


def test_atoms_that_are_too_close_are_named():
    structure = Structure.from_atoms(molecule("H2"))
    structure.positions[1] = structure.positions[0] + [0, 0, 0.3]
    with pytest.raises(DataError, match=r"H2: atoms 0 and 1 are 0.30 A apart, closer than 0.4 A"):
        neighbor_list(structure, 3.0)
    assert len(neighbor_list(structure, 3.0, min_distance=0)) == 2


def test_a_cell_smaller_than_an_atom_is_refused():
    atoms = bulk("Cu", "sc", 0.36)
    with pytest.raises(DataError, match=r"atom 0 and its own image are 0.36 A apart"):
        neighbor_list(Structure.from_atoms(atoms), 1.0)


@pytest.mark.parametrize("far", [2e3, 1e6, 1e9])
@pytest.mark.parametrize("kind", ["slab", "wire", "molecule"])
def test_atoms_may_be_far_apart_where_nothing_repeats(kind, far):
    atoms = CELLS[kind]()
    other = atoms.copy()
    other.positions += [far, 0.5, 0] if kind == "wire" else [0, 0, far]
    if kind == "slab":
        atoms.cell[2, 2] = 2 * far
    alone, both = (neighbor_list(Structure.from_atoms(one), 4.0) for one in (atoms, atoms + other))
    edges = list(zip(alone.senders.tolist(), alone.receivers.tolist(), map(tuple, alone.shifts.tolist()), strict=True))
    copies = [(first + len(atoms), second + len(atoms), shift) for first, second, shift in edges]
    found = zip(both.senders.tolist(), both.receivers.tolist(), map(tuple, both.shifts.tolist()), strict=True)
    assert Counter(found) == Counter(edges + copies)
    np.testing.assert_allclose(np.sort(both.distances), np.sort(np.tile(alone.distances, 2)), atol=1e-15 * far + 1e-9)


def test_a_cell_that_repeats_after_a_million_angstroms_is_refused():
    atoms = bulk("Cu", "fcc", 3.6, cubic=True)
    atoms.cell[2, 2] = 1e6
    with pytest.raises(DataError, match=r"Cu4: its cell repeats after 1e\+06 A, .* check its unit"):
        neighbor_list(Structure.from_atoms(atoms), 4.0)
