"""What lies outside a training set is found, and what lies inside is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from domains.materials.data.neighbors import graph_sample
from domains.materials.data.schema import MaterialsSchema, MaterialsStatistics
from domains.materials.data.structure import Structure
from domains.materials.inference.out_of_domain import CLOSER, DOUBT, edge_lengths, in_words, outside, severity

CUTOFF = 4.0
SCHEMA = MaterialsSchema((28, 29, 46), CUTOFF, {})  # Ni, Cu, Pd
SHORTEST = 2.4


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def statistics(**changes):
    """All pairs met at no less than 2.4 A, but for Cu-Pd, which never met."""
    shortest = torch.full((3, 3), SHORTEST, dtype=torch.float64)
    shortest[1, 2] = shortest[2, 1] = torch.inf
    values = {
        "references": torch.zeros(1, 3, dtype=torch.float64),
        "energy_std": number(0.2),
        "avg_num_neighbors": number(12.0),
        "element_counts": torch.ones(3, dtype=torch.float64),
        "shortest": shortest,
        "rms": {"forces": number(1.0)},
    }
    return MaterialsStatistics(**{**values, "mean": {}, "std": {}, "count": {}, **changes})


def crystal(**symbols):
    """Eight nickel atoms, 2.49 A apart, some of them replaced."""
    atoms = bulk("Ni", "fcc", 3.52, cubic=True).repeat((2, 1, 1))
    for symbol, index in symbols.items():
        atoms.symbols[index] = symbol
    return graph_sample(Structure.from_atoms(atoms), CUTOFF)


def kinds(reasons):
    return [reason.kind for reason in reasons]


def test_a_structure_like_those_of_training_lies_inside():
    spreads = {"energy_std": np.array(0.5 * DOUBT * 0.2 * 8), "forces_std": np.full((8, 3), 0.9 * DOUBT)}
    assert outside(crystal(Cu=0), SCHEMA, statistics(), spreads) == []
    assert outside(crystal(Pd=0), SCHEMA, statistics()) == []


def test_a_pair_that_never_met_is_told_once():
    (reason,) = outside(crystal(Cu=0, Pd=1), SCHEMA, statistics())
    assert reason.kind == "pair"
    assert reason.text == "Cu-Pd were never neighbors in training"
    far = Atoms("CuPd", positions=[[0, 0, 0], [CUTOFF + 0.1, 0, 0]])
    assert outside(graph_sample(Structure.from_atoms(far), CUTOFF), SCHEMA, statistics()) == []


def test_an_element_without_atoms_in_training_is_named_and_not_its_pairs_too():
    shortest = statistics().shortest[0].clone()
    shortest[2], shortest[:, 2] = torch.inf, torch.inf
    unseen = statistics(element_counts=torch.tensor([5.0, 5.0, 0.0]).double(), shortest=shortest)
    (reason,) = outside(crystal(Cu=0, Pd=1), SCHEMA, unseen)
    assert (reason.kind, reason.text) == ("element", "no Pd in training")


@pytest.mark.parametrize(("share", "expected"), [(0.99 * CLOSER, ["distance"]), (1.01 * CLOSER, []), (1.2, [])])
def test_a_distance_well_below_the_shortest_of_its_pair_is_outside(share, expected):
    pair = Structure.from_atoms(Atoms("NiCu", positions=[[0, 0, 0], [share * SHORTEST, 0, 0]]))
    found = outside(graph_sample(pair, CUTOFF), SCHEMA, statistics())
    assert kinds(found) == expected
    if found:
        assert found[0].text == f"Ni-Cu at {share * SHORTEST:.2f} A, at least 2.40 A in training"
        assert found[0].excess == pytest.approx(1 / share)


def test_distances_are_those_of_the_pair_in_either_order():
    shortest = torch.full((3, 3), 1.0, dtype=torch.float64)
    shortest[1, 0] = shortest[0, 1] = SHORTEST
    for symbols in ("NiCu", "CuNi"):
        pair = Structure.from_atoms(Atoms(symbols, positions=[[0, 0, 0], [2.0, 0, 0]]))
        assert kinds(outside(graph_sample(pair, CUTOFF), SCHEMA, statistics(shortest=shortest))) == ["distance"]


def test_spreads_are_judged_by_atom():
    sample = crystal()
    doubtful = {"energy_std": np.array(1.1 * DOUBT * 0.2 * 8)}
    (reason,) = outside(sample, SCHEMA, statistics(), doubtful)
    assert reason.kind == "spread"
    assert reason.text == "energy known to 0.11 eV/atom, labels scatter by 0.2 in training"
    assert reason.excess == pytest.approx(1.1)
    forces = np.zeros((8, 3))
    forces[5] = 1.1 * DOUBT  # one atom is enough
    assert kinds(outside(sample, SCHEMA, statistics(), {"forces_std": forces})) == ["spread"]
    assert outside(sample, SCHEMA, statistics(), {"energy": np.array(-30.0), "forces": forces}) == []


def test_the_gravest_reason_comes_first():
    stretched = graph_sample(
        Structure.from_atoms(Atoms("NiCuPd", positions=[[0, 0, 0], [2.0, 0, 0], [3.0, 1.8, 0]])), CUTOFF
    )
    found = outside(stretched, SCHEMA, statistics(), {"forces_std": np.full((3, 3), 5.0)})
    assert kinds(found) == ["pair", "distance", "spread"]
    assert found == sorted(reversed(found), key=severity)
    assert in_words(found).count("; ") == 2


def test_atoms_alone_have_no_distances():
    lone = graph_sample(Structure.from_atoms(Atoms("Ni", positions=[[0, 0, 0]])), CUTOFF)
    assert outside(lone, SCHEMA, statistics()) == []


def test_lengths_reach_across_faces_of_the_cell():
    sample = crystal()
    np.testing.assert_allclose(edge_lengths(sample).min(), 3.52 / 2**0.5)
    moved = replace(sample, positions=sample.positions + 0.3)
    np.testing.assert_allclose(edge_lengths(moved), edge_lengths(sample))
    known = edge_lengths(sample) - 1.0
    assert kinds(outside(sample, SCHEMA, statistics(), distances=known)) == ["distance"]


def test_a_free_atom_lies_outside_unless_its_energy_is_known():
    lonely = graph_sample(Structure.from_atoms(Atoms("NiCu", positions=[[0, 0, 0], [0, 0, 9.0]])), CUTOFF)
    fitted = {"references": number([[-4.3, -3.4, -3.8]])}
    found = outside(lonely, SCHEMA, statistics(**fitted))
    assert kinds(found) == ["free atom", "free atom"]
    assert in_words(found[:1]).startswith("Ni without a neighbor within 4 A, and the energy of a free Ni is not known")
    half = outside(lonely, SCHEMA, statistics(**fitted, bonding=number([[-3.0, 0.0, 0.0]])))
    assert [one.text[:2] for one in half] == ["Cu"]
    assert outside(crystal(Cu=0), SCHEMA, statistics(**fitted)) == []


def test_elements_that_were_mixed_are_those_that_all_met():
    counts = torch.tensor([[5.0, 9.0, 7.0]])
    assert statistics(element_counts=counts).mixed(SCHEMA.elements, 4) == [28, 29]  # Cu and Pd never met
    assert statistics(element_counts=counts).mixed(SCHEMA.elements, 1) == [29]
