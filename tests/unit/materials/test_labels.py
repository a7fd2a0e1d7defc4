import numpy as np
import pytest
from ase.units import Bohr, GPa, Hartree, Ry, kJ, mol

from domains.materials.data.labels import LabelSpec, checked_label, parse_labels
from domains.materials.data.structure import stress_matrix
from sciml.core.errors import ConfigError, DataError

VOIGT = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


def taken(name, value, num_atoms=2, volume=10.0, **options):
    specs, _ = parse_labels({name: {"key": name, **options}})
    return checked_label(specs[name], value, num_atoms, volume, "file@3")


@pytest.mark.parametrize(
    ("unit", "one"),
    [("eV", 1), ("meV", 1e-3), ("Ha", Hartree), ("Ry", Ry), ("kJ/mol", kJ / mol), ("eV/atom", 2), ("Ry/atom", 2 * Ry)],
)
def test_energies_become_electron_volts_of_the_structure(unit, one):
    assert np.isclose(taken("energy", 3.0, unit=unit), 3 * one)


def test_forces_become_electron_volts_per_angstrom():
    forces = np.ones((2, 3))
    np.testing.assert_allclose(taken("forces", forces, unit="Ha/Bohr"), Hartree / Bohr * forces)
    np.testing.assert_allclose(taken("forces", forces, unit="meV/A"), 1e-3 * forces)


@pytest.mark.parametrize("value", [VOIGT, stress_matrix(VOIGT), stress_matrix(VOIGT).ravel()])
def test_stress_comes_in_three_shapes(value):
    np.testing.assert_array_equal(taken("stress", value), stress_matrix(VOIGT))


def test_kilobars_have_the_sign_and_the_order_of_vasp():
    vasp = np.array([1.0, 2.0, 3.0, 6.0, 4.0, 5.0])  # xx, yy, zz, xy, yz, zx
    expected = stress_matrix(VOIGT) * -0.1 / 160.21766208
    np.testing.assert_allclose(taken("stress", vasp, unit="kbar"), expected, rtol=1e-7)
    np.testing.assert_allclose(taken("stress", VOIGT, unit="kbar", convention="ase"), -expected, rtol=1e-7)


def test_gigapascals_and_virials_become_stresses():
    np.testing.assert_allclose(taken("stress", VOIGT, unit="GPa"), stress_matrix(VOIGT) * GPa)
    np.testing.assert_allclose(taken("stress", VOIGT, unit="virial eV"), -stress_matrix(VOIGT) / 10.0)


def test_labels_are_described_with_unit_and_sign():
    specs, _ = parse_labels({"stress": {"key": "S", "unit": "kbar"}, "energy": "E", "hardness": "H"})
    assert "'S' in kbar, the opposite of ASE's sign" in specs["stress"].describe()
    assert specs["energy"].describe() == "energy from 'E' in eV (assumed)"
    assert specs["hardness"].describe() == "hardness from 'H' as in the file"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"energy": {"unit": "erg"}}, "labels.energy.unit must be one of .*, got 'erg'"),
        (
            {"energy": {"units": "eV"}},
            "labels.energy must be one of key, .*, got 'units'; did you mean 'unit'",
        ),
        ({"stress": {"convention": "wasp"}}, "did you mean 'vasp'"),
        ({"energy": 3}, "labels.energy: 3 is no label; write e.g. labels.energy=REF_energy"),
        ({"a/b": "c"}, "'a/b' is no name"),
    ],
)
def test_a_wrong_description_of_labels_is_refused(labels, said):
    with pytest.raises(ConfigError, match=said):
        parse_labels(labels)


def test_null_leaves_a_label_out():
    assert parse_labels({"charges": None, "energy": "E"}) == ({"energy": LabelSpec("energy", "E")}, {"charges"})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("forces", [[0, 0, 0], [0, np.nan, 0]], "file@3: forces of atom 1 is not a finite number"),
        ("energy", np.inf, "file@3: energy is not a finite number"),
        ("energy", "low", "file@3: energy is no number but 'low'"),
        ("stress", np.ones(5), r"file@3: stress has 5 values of shape \(5,\); it needs 6"),
        ("stress", np.arange(9.0), "file@3: stress is not symmetric"),
        ("forces", np.ones((3, 3)), r"file@3: forces has the shape \(3, 3\), it needs \(2, 3\)"),
        ("magnetic_moments", np.ones((2, 3)), r"magnetic_moments has the shape \(2, 3\), it needs \(2,\)"),
    ],
)
def test_values_that_cannot_be_are_refused(name, value, said):
    with pytest.raises(DataError, match=said):
        taken(name, value)


def test_stress_needs_a_volume():
    with pytest.raises(DataError, match="file@3: stress without a cell of three vectors"):
        taken("stress", VOIGT, volume=0.0)
