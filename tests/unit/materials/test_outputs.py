"""Outputs of DFT programs are known by how they begin, alone and in folders."""

from __future__ import annotations

import numpy as np
import pytest
from ase.units import Bohr, Hartree, Ry

from domains.materials.data.readers.castep import WARNING
from domains.materials.data.readers.files import format_of, locate
from domains.materials.data.structure import stress_voigt
from sciml.core.errors import DataError

from .alloy_files import alloy, extxyz
from .test_readers import read

ABINIT = """\

.Version 8.10.3 of ABINIT

 -outvars: echo values of preprocessed input variables --------
            natom           2
           ntypat           1
            acell      1.0  1.0  1.0 Bohr
            rprim      7.0  0.0  0.0
                       0.0  7.0  0.0
                       0.0  0.0  8.0
            typat      1  1
            znucl       28.0

================================

 ----iterations are completed or convergence reached----

 cartesian coordinates (angstrom) at end:
    1      0.0     0.0     0.0
    2      1.8     1.8     1.7

 cartesian forces (eV/Angstrom) at end:
    1     -0.1    -0.3    0.4
    2      0.1     0.3   -0.4

 Components of total free energy (in Hartree) :

    >>>>>>>>> Etotal= -42.5

 Cartesian components of stress tensor (hartree/bohr^3)
  sigma(1 1)=  2.3E-05  sigma(3 2)=  3.1E-05
  sigma(2 2)=  2.4E-05  sigma(3 1)=  3.2E-05
  sigma(3 3)=  2.5E-05  sigma(2 1)=  3.3E-05

END DATASET(S)
"""
ESPRESSO = """
     Program PWSCF v.7.2 starts on  1Jan2024 at 12: 0: 0

     bravais-lattice index     =            0
     lattice parameter (alat)  =       6.0000  a.u.
     number of atoms/cell      =            2
     celldm(1)=   6.000000  celldm(2)=   0.000000  celldm(3)=   0.000000

     crystal axes: (cart. coord. in units of alat)
               a(1) = (   1.000000   0.000000   0.000000 )
               a(2) = (   0.000000   1.000000   0.000000 )
               a(3) = (   0.000000   0.000000   1.000000 )

   Cartesian axes

     site n.     atom                  positions (alat units)
         1           Nb  tau(   1) = (   0.0000000   0.0000000   0.0000000  )
         2           Nb  tau(   2) = (   0.5000000   0.5000000   0.4500000  )

     number of k points=     1
                       cart. coord. in units 2pi/alat
        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000

!    total energy              =     -50.00000000 Ry

     Forces acting on atoms (cartesian axes, Ry/au):

     atom    1 type  1   force =     0.00000000    0.00000000    0.02000000
     atom    2 type  1   force =     0.00000000    0.00000000   -0.02000000

     Total force =     0.028284     Total SCF correction =     0.000000

     Computing stress (Cartesian axis) and pressure

          total   stress  (Ry/bohr**3)                   (kbar)     P=       14.71
   0.00010000   0.00000000   0.00003000           14.71        0.00        4.41
   0.00000000   0.00010000   0.00000000            0.00       14.71        0.00
   0.00003000   0.00000000   0.00010000            4.41        0.00       14.71
"""
CASTEP = """
 | Welcome to Academic Release CASTEP version 23.1 |
 ************************************ Title ************************************

 *******************************************************************************
                           -------------------------------
                                      Unit Cell
                           -------------------------------
        Real Lattice(A)              Reciprocal Lattice(1/A)
     3.5000000     0.0000000     0.0000000        1.7951958     0.0000000     0.0000000
     0.0000000     3.5000000     0.0000000        0.0000000     1.7951958     0.0000000
     0.0000000     0.0000000     3.5000000        0.0000000     0.0000000     1.7951958

                           -------------------------------
                                     Cell Contents
                           -------------------------------
                         Total number of ions in cell =    1
                      Total number of species in cell =    1
                        Max number of any one species =    1

            xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
            x  Element         Atom        Fractional coordinates of atoms  x
            x                 Number           u          v          w      x
            x----------------------------------------------------------x
            x  Ni                1         0.000000   0.000000   0.000000   x
            xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx

%s
Final energy, E             =  -1351.250000000     eV
"""


@pytest.mark.parametrize("name", ["run.abo", "abinit.out", "log"])
def test_outputs_of_abinit_are_told_from_its_inputs(tmp_path, name):
    (tmp_path / name).write_text(ABINIT)
    (found,) = read(tmp_path / name)
    assert found.labels["energy"] == pytest.approx(-42.5 * Hartree)
    np.testing.assert_allclose(found.labels["forces"][0], [-0.1, -0.3, 0.4])
    stress = stress_voigt(found.labels["stress"])
    np.testing.assert_allclose(stress, 1e-5 * np.array([2.3, 2.4, 2.5, 3.1, 3.2, 3.3]) * Hartree / Bohr**3)


def test_folders_of_quantum_espresso(tmp_path):
    for name in ("a/scf.out", "b/relax.pwo"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(ESPRESSO)
    (tmp_path / "a/slurm.out").write_text("loaded modules: quantum-espresso\n")
    found = read(tmp_path)
    assert [one.name for one in found] == [f"{tmp_path}/a/scf.out@0", f"{tmp_path}/b/relax.pwo@0"]
    for one in found:
        assert one.labels["energy"] == pytest.approx(-50 * Ry, rel=1e-6)
        np.testing.assert_allclose(one.labels["forces"][1], [0, 0, -0.02 * Ry / Bohr], rtol=1e-6)
        # a pressure of the crystal is a negative stress of ASE
        expected = -1e-4 * np.array([1, 1, 1, 0, 0.3, 0]) * Ry / Bohr**3
        np.testing.assert_allclose(stress_voigt(one.labels["stress"]), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "start", "kind"),
    [
        ("aims.out", "------\n          Invoking FHI-aims ...\n", "aims-output"),
        ("gpaw.txt", "\n  ___ ___ ___ _ _ _  \n |   |   |_  | | | | \n", "gpaw-out"),
        ("a.castep", "Welcome to CASTEP\n", "castep-castep"),
        ("notes.txt", "to do: ABINIT\n", None),
    ],
)
def test_programs_are_known_by_how_their_outputs_begin(tmp_path, name, start, kind):
    (tmp_path / name).write_text(start)
    assert format_of(str(tmp_path / name)) == kind


def test_counts_of_atoms_beside_rows_of_fairchem_are_no_structures(tmp_path):
    for folder in ("val", "other"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "metadata.npz", natoms=np.full(3, 8))
    (tmp_path / "val/data.0000.aselmdb").write_bytes(b"rows")
    (tmp_path / "val/data.0000.aselmdb-lock").write_bytes(b"")
    extxyz(tmp_path / "other/a.extxyz", [alloy(0)])
    assert locate(str(tmp_path / "val")) == [str(tmp_path / "val/data.0000.aselmdb")]
    assert len(locate(str(tmp_path / "other"))) == 2


def test_steps_of_castep_whose_electrons_did_not_converge_are_no_labels(tmp_path):
    head, step = CASTEP.split("                                      Unit Cell", 1)
    steps = [
        f"                                      Unit Cell{step % said}" for said in ("", f"*Warning* max. {WARNING}.")
    ]
    last = "Finalisation time   =      0.01 s\n"
    (tmp_path / "a.castep").write_text(head + " Starting MD iteration          1 ...\n".join(steps) + last)
    with pytest.raises(DataError, match=r"a.castep@1: its electrons have not converged within max_scf_cycles steps; "):
        read(tmp_path)
    (found,) = read(tmp_path, skip_bad=True)
    assert (found.formula, float(found.labels["energy"])) == ("Ni", -1351.25)
