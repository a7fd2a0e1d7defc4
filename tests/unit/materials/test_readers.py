import contextlib
import gzip
import lzma
import pickle
import sqlite3

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from ase.units import Bohr, Ry

from domains.materials.data.readers.files import locate
from domains.materials.data.readers.labeled_frames import check_atoms
from domains.materials.data.readers.source import FormatOptions, ReadOptions, read_frames, read_structures
from domains.materials.data.readers.vasp import REACHED
from domains.materials.data.structure import Structure, stress_voigt
from sciml.core.errors import ConfigError, DataError

from .alloy_files import alloy, extxyz, mixed_set, relabeled


def read(path, **options):
    return [structure for _, structure in read_structures(str(path), ReadOptions(**options))]


def assert_same(structures, frames):
    assert len(structures) == len(frames)
    for structure, atoms in zip(structures, frames, strict=True):
        expected = Structure.from_atoms(atoms)
        np.testing.assert_array_equal(structure.atomic_numbers, expected.atomic_numbers)
        np.testing.assert_array_equal(structure.pbc, expected.pbc)
        np.testing.assert_allclose(structure.positions, expected.positions, atol=1e-7)
        np.testing.assert_allclose(structure.cell, expected.cell, atol=1e-7)
        assert set(structure.labels) == {"energy", "forces", "stress"}
        for name, value in expected.labels.items():
            np.testing.assert_allclose(structure.labels[name], value, atol=1e-7)


@pytest.mark.parametrize("opened", [open, gzip.open, lzma.open])
def test_extxyz_plain_and_compressed(tmp_path, opened):
    frames = mixed_set(5)
    extxyz(tmp_path / "plain.extxyz", frames)
    suffix = {open: "", gzip.open: ".gz", lzma.open: ".xz"}[opened]
    path = tmp_path / f"alloys.extxyz{suffix}"
    with opened(path, "wt") as file:
        file.write((tmp_path / "plain.extxyz").read_text())
    structures = read(path)
    assert_same(structures, frames)
    assert [s.group for s in structures] == ["Cu", "Ni", "Cu-Ni", "Cu", "Ni"]
    assert structures[3].name == f"{path}@3"


def test_a_trajectory_and_a_database(tmp_path):
    frames = mixed_set(3)
    write(tmp_path / "run.traj", frames)
    assert_same(read(tmp_path / "run.traj"), frames)
    with connect(tmp_path / "set.db") as database:
        for atoms in frames:
            database.write(atoms, group=atoms.info["group"], bandgap=0.5)
    structures = read(tmp_path / "set.db")
    assert_same(structures, frames)
    assert structures[2].group == "Cu-Ni"
    assert read(tmp_path / "set.db", labels={"bandgap": "bandgap"})[0].labels["bandgap"] == 0.5


def test_magnetic_moments_and_charges_are_found(tmp_path):
    atoms = relabeled(alloy(0), magmoms=np.arange(8.0), charges=np.linspace(-1, 1, 8))
    labels = read(extxyz(tmp_path / "a.extxyz", [atoms]))[0].labels
    np.testing.assert_array_equal(labels["magnetic_moments"], np.arange(8.0))
    np.testing.assert_allclose(labels["charges"], np.linspace(-1, 1, 8), atol=1e-7)


def test_labels_under_other_names_and_units(tmp_path):
    atoms = alloy(0)
    results, bare = atoms.calc.results, atoms.copy()
    bare.info["REF_energy"] = results["energy"] / Ry
    bare.arrays["REF_forces"] = results["forces"] * 1000
    bare.info["S"] = -10 * results["stress"][[0, 1, 2, 5, 3, 4]] * 160.21766208  # as VASP prints it
    bare.arrays["volume_of_atom"] = np.arange(8.0)
    path = extxyz(tmp_path / "a.extxyz", [bare])
    labels = {
        "energy": {"key": "REF_energy", "unit": "Ry"},
        "forces": {"key": "REF_forces", "unit": "meV/A"},
        "stress": {"key": "S", "unit": "kbar"},
        "size": "volume_of_atom",
    }
    structure = read(path, labels=labels)[0]
    np.testing.assert_array_equal(structure.labels.pop("size"), np.arange(8.0))
    assert_same([structure], [atoms])


@pytest.mark.parametrize("name", ["vasprun.xml", "OUTCAR", "OUTCAR.gz"])
def test_outputs_of_vasp(tmp_path, name):
    folder = tmp_path / "relax"
    folder.mkdir()
    opened = gzip.open if name.endswith(".gz") else open
    with opened(folder / name, "wt") as file:
        file.write(VASPRUN if name == "vasprun.xml" else OUTCAR)
    structure = read(tmp_path)[0]
    assert (structure.group, structure.formula) == ("relax", "Cu2")
    assert np.isclose(structure.labels["energy"], -7.5)
    assert read(tmp_path, labels={"energy": "free_energy"})[0].labels["energy"] == -7.6
    np.testing.assert_allclose(structure.labels["forces"], [[0.1, 0, 0], [-0.1, 0, 0]])
    # 10 kbar of VASP is a pressure of 1 GPa, and ASE's stress is minus the pressure
    expected = -np.array([10.0, 20.0, 30.0, 0.0, 0.0, 4.0]) * 0.1 / 160.21766208
    np.testing.assert_allclose(stress_voigt(structure.labels["stress"]), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["vasprun.xml", "OUTCAR"])
def test_ionic_steps_of_vasp_whose_electrons_did_not_converge_are_no_labels(tmp_path, name):
    if name == "OUTCAR":
        head, step = OUTCAR.split("\n\n", 1)
        last = "Iteration      1(   2)\n"
        steps = [step.replace("Iteration      1(   1)", last + REACHED), step.replace("Iteration      1(   1)", last)]
        steps[1] = steps[1].replace("Iteration      1(", "Iteration      2(")
        text = f"{head}\n   NELM   =      2;   NELMIN=  2\n\n{''.join(steps)}"
    else:
        limited = VASPRUN.replace("<parameters>", '<parameters><i type="int" name="NELM">2</i>')
        start, end = limited.index(" <calculation>"), limited.index("</modeling>")
        step = limited[start:end]
        more = step[step.index("  <scstep>") : step.index("  <structure>")]
        text = limited[:start] + step + step.replace(more, 2 * more) + "</modeling>\n"
    (tmp_path / name).write_text(text)
    assert len(list(read_frames(str(tmp_path / name), ReadOptions(), 0))) == 2
    with pytest.raises(DataError, match=rf"{name}@1: its electrons have not converged .*; skip_bad=true"):
        read(tmp_path)
    assert [one.name[-2:] for one in read(tmp_path, skip_bad=True)] == ["@0"]


def test_a_run_of_vasp_is_taken_once(tmp_path):
    (tmp_path / "vasprun.xml").write_text(VASPRUN)
    (tmp_path / "OUTCAR").write_text(OUTCAR)
    assert locate(str(tmp_path)) == [str(tmp_path / "vasprun.xml")]


VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>
 <parameters></parameters>
 <atominfo><atoms>2</atoms><types>1</types>
  <array name="atoms"><set><rc><c>Cu</c><c>1</c></rc><rc><c>Cu</c><c>1</c></rc></set></array></atominfo>
 <structure name="initialpos"><crystal><varray name="basis"><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray></crystal>
  <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray></structure>
 <calculation>
  <scstep><energy><i name="e_fr_energy">-7.6</i><i name="e_wo_entrp">-7.4</i><i name="e_0_energy">-7.5</i></energy>
  </scstep>
  <structure><crystal><varray name="basis"><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray></crystal>
   <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray></structure>
  <varray name="forces"><v>0.1 0 0</v><v>-0.1 0 0</v></varray>
  <varray name="stress"><v>10 4 0</v><v>4 20 0</v><v>0 0 30</v></varray>
  <energy><i name="e_fr_energy">-7.6</i><i name="e_wo_entrp">-7.4</i><i name="e_0_energy">-7.5</i></energy>
 </calculation>
</modeling>
"""

OUTCAR = """ POTCAR:    PAW_PBE Cu 22Jun2005
 POTCAR:    PAW_PBE Cu 22Jun2005
   VRHFIN =Cu: d10 p1
   TITEL  = PAW_PBE Cu 22Jun2005
   ions per type =               2
   ISPIN  =      1    spin polarized calculation?
   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=     12
   number of dos      NEDOS =    301   number of ions     NIONS =      2
 k-points in reciprocal lattice and weights: Gamma
   0.00000000  0.00000000  0.00000000       1.000

--------------------------------------- Iteration      1(   1)  ---------------------------------------
  FORCE on cell =-STRESS in cart. coord.  units (eV):
  Direction    XX          YY          ZZ          XY          YZ          ZX
  in kB      10.00000    20.00000    30.00000     4.00000     0.00000     0.00000
      direct lattice vectors                 reciprocal lattice vectors
     4.000000000  0.000000000  0.000000000     0.250000000  0.000000000  0.000000000
     0.000000000  4.000000000  0.000000000     0.000000000  0.250000000  0.000000000
     0.000000000  0.000000000  4.000000000     0.000000000  0.000000000  0.250000000

 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.100000      0.000000      0.000000
      2.00000      2.00000      2.00000        -0.100000      0.000000      0.000000
 -----------------------------------------------------------------------------------
    total drift:                                0.000000      0.000000      0.000000

  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =        -7.60000000 eV

  energy  without entropy=       -7.40000000  energy(sigma->0) =       -7.50000000
"""


def test_configurations_of_mlip(tmp_path):
    atoms = alloy(3)
    lines = ["BEGIN_CFG", " Size", f"    {len(atoms)}", " Supercell"]
    lines += ["  ".join(map(repr, map(float, row))) for row in atoms.cell.array]
    lines.append(" AtomData:  id type       cartes_x      cartes_y      cartes_z           fx          fy          fz")
    kinds = [symbol == "Cu" for symbol in atoms.symbols]
    for n, (kind, place, force) in enumerate(zip(kinds, atoms.positions, atoms.get_forces(), strict=True)):
        lines.append(f"   {n + 1} {int(kind)} " + " ".join(map(repr, map(float, [*place, *force]))))
    virial = -atoms.get_stress() * atoms.get_volume()
    lines += [" Energy", f"   {float(atoms.get_potential_energy())!r}", " PlusStress:  xx  yy  zz  yz  xz  xy"]
    lines += ["  ".join(map(repr, map(float, virial))), " Feature   EFS_by  EMT", "END_CFG", ""]
    path = tmp_path / "train.cfg"
    path.write_text("\n".join(lines * 2))
    assert_same(read(path, species=["Ni", "Cu"]), [atoms, atoms])
    with pytest.raises(ConfigError, match=r"species: .*train.cfg numbers its elements from 0"):
        read(path)
    with pytest.raises(ConfigError, match="has the type 1; name an element for each type"):
        read(path, species=["Ni"])
    path.write_text("\n".join(lines[:7]))
    with pytest.raises(DataError, match=r"train\.cfg@0: the file ends in the middle"):
        read(path, species=["Ni", "Cu"])


def test_atom_eye_with_forces_and_a_bulk_file(tmp_path):
    atoms = alloy(4)
    copied = atoms.copy()
    for axis, column in zip("xyz", atoms.get_forces().T, strict=True):
        copied.arrays[f"f{axis}"] = column
    copied.arrays["c_peratom"] = np.full(8, atoms.get_potential_energy() / 8)
    write(tmp_path / "cell.cfg", copied, format="cfg")
    (tmp_path / "cell.bulk").write_text("140.5\n")
    structure = read(tmp_path / "cell.cfg", labels={"energy": "c_peratom", "bulk_modulus": "bulk"})[0]
    np.testing.assert_allclose(structure.labels["forces"], atoms.get_forces(), atol=1e-6)
    assert np.isclose(structure.labels["energy"], atoms.get_potential_energy())
    assert structure.labels["bulk_modulus"] == 140.5


def test_records_of_lsms(tmp_path):
    (tmp_path / "output1.txt").write_text(
        "-5082.5  0.3 0.1\n"
        "26 0 0.0 0.0 0.0 25.8 2.9\n"
        "78 1 3.6 3.6 0.0 78.2 0.3\n"
    )  # fmt: skip
    structure = read(tmp_path, cell=[3.8, 3.8, 3.8])[0]
    assert structure.formula == "FePt"
    np.testing.assert_allclose(structure.positions[1], [3.6 * Bohr, 3.6 * Bohr, 0])
    assert np.isclose(structure.labels["energy"], -5082.5 * Ry)
    np.testing.assert_allclose(structure.labels["charges"], [0.2, -0.2])
    np.testing.assert_allclose(structure.labels["magnetic_moments"], [2.9, 0.3])
    assert structure.pbc.all()
    assert not read(tmp_path, cell=[0, 0, 0])[0].pbc.any()
    with pytest.raises(ConfigError, match=r"cell: .*has no cell"):
        read(tmp_path)


def test_folders_and_patterns_stand_for_their_files(tmp_path):
    for name in ("b/two.extxyz", "a/one.extxyz", "a/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        extxyz(tmp_path / name, [alloy(0)]) if name.endswith("xyz") else (tmp_path / name).write_text("notes")
    files = [str(tmp_path / name) for name in ("a/one.extxyz", "b/two.extxyz")]
    assert locate(str(tmp_path)) == files
    assert locate(str(tmp_path / "*" / "*.extxyz")) == files
    assert len(read(tmp_path)) == 2
    with pytest.raises(DataError, match="no file matches"):
        locate(str(tmp_path / "*.db"))
    with pytest.raises(DataError, match=r"no such file or folder; did you mean 'one.extxyz'"):
        locate(str(tmp_path / "a" / "on.extxyz"))


def test_reading_goes_on_from_a_place(tmp_path):
    for name in ("a", "b"):
        extxyz(tmp_path / f"{name}.extxyz", mixed_set(3))
    whole = list(read_structures(str(tmp_path)))
    assert [place for place, _ in whole] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for start in range(7):
        place = whole[start][0] if start < 6 else (1, 3)
        rest = list(read_structures(str(tmp_path), start=place))
        assert [s.name for _, s in rest] == [s.name for _, s in whole[start:]]


def broken(atoms, **changes):
    fresh = relabeled(atoms, **changes.pop("labels", {}))
    for name, value in changes.items():
        setattr(fresh, name, value)
    return fresh


BROKEN = {
    "NaN forces": (lambda a: broken(a, labels={"forces": np.full((8, 3), np.nan)}), "@1: forces of atom 0 is not"),
    "forces without energy": (lambda a: broken(a, labels={"energy": None}), r"@1: forces without energy .*labels"),
    "wrong stress": (lambda a: broken(a, labels={"stress": np.ones(5)}), "@1: stress has 5 values"),
    "no cell": (lambda a: broken(a, labels={"stress": None}, cell=np.zeros((3, 3))), "@1: pbc says .* it has no cell"),
    "flat cell": (lambda a: broken(a, cell=[[1, 0, 0], [2, 0, 0], [0, 0, 3]]), "@1: pbc says .* a cell without volume"),
    "unknown element": (lambda a: broken(a, numbers=[0] * 8), "@1: unknown element of atom 0"),
    "lost atom": (lambda a: broken(a, positions=np.full((8, 3), np.inf)), "@1: the position of atom 0 is not"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_bad_structures_are_refused_with_file_and_number(tmp_path, name):
    change, said = BROKEN[name]
    write(tmp_path / "set.traj", [alloy(0), change(alloy(1))])
    with pytest.raises(DataError, match=rf"set\.traj{said}"):
        read(tmp_path / "set.traj")


def test_an_unknown_symbol_is_named(tmp_path):
    path = extxyz(tmp_path / "a.extxyz", [alloy(0)])
    text = (tmp_path / "a.extxyz").read_text().replace("Cu ", "Qq ")
    (tmp_path / "a.extxyz").write_text(text)
    with pytest.raises(DataError, match=r"a\.extxyz@0: unknown element or entry 'Qq'"):
        read(path)


@pytest.mark.parametrize(("shares", "said"), [
    ({"Ni": 0.5, "Cu": 0.3, "Co": 0.2}, r"site 0 is shared .*\(Ni 0.5, Cu 0.3, Co 0.2\)"),
    ({"Ni": 0.9}, r"site 0 is .*empty in part \(Ni 0.9\)"),
])  # fmt: skip
def test_shared_sites_of_cif_are_refused(tmp_path, shares, said):
    rows = "\n".join(f"{symbol} 0 0 0 {share}" for symbol, share in shares.items())
    lattice = "".join(f"_cell_length_{axis} 3.6\n" for axis in "abc") + "".join(
        f"_cell_angle_{angle} 90\n" for angle in ("alpha", "beta", "gamma")
    )
    columns = "\n".join(f"_atom_site_{name}" for name in ("type_symbol", "fract_x", "fract_y", "fract_z", "occupancy"))
    text = f"data_a\n{lattice}_symmetry_space_group_name_H-M 'F m -3 m'\nloop_\n{columns}\n"
    path = tmp_path / "a.cif"
    path.write_text(f"{text}{rows}\n")
    with pytest.raises(DataError, match=f"a.cif@0: {said}"):
        read(path)
    path.write_text(f"{text}Ni 0 0 0 1.0\n")
    (atoms,) = read_frames(str(path), ReadOptions(), 0)
    check_atoms(atoms, "whole")


def test_pbc_without_a_lattice_in_extxyz(tmp_path):
    (tmp_path / "a.xyz").write_text('1\nProperties=species:S:1:pos:R:3 energy=1 pbc="T T T"\nCu 0 0 0\n')
    with pytest.raises(DataError, match=r"a\.xyz@0: pbc says that the structure repeats, but it has no cell"):
        read(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("\n", "no structure is found in it, read as extxyz"),
        ("2\nenergy=1\nCu 0 0 0\n", "@0: the file ends in the middle"),
        ("Cu\n0 0 0\n", "@0: 'Cu' stands where a number of atoms should"),
        ("0\nenergy=1\n", "@0: "),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, said):
    (tmp_path / "a.extxyz").write_text(text)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "a.extxyz")


def test_a_damaged_trajectory_and_a_folder_without_structures(tmp_path):
    (tmp_path / "a.traj").write_bytes(b"no trajectory")
    with pytest.raises(DataError, match=r"a\.traj@0: cannot be read, it is damaged"):
        read(tmp_path / "a.traj")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: the folder has no file with structures"):
        read(tmp_path / "empty")


def test_forces_alone_are_taken_where_that_is_wanted(tmp_path):
    path = extxyz(tmp_path / "a.extxyz", [relabeled(alloy(0), energy=None)])
    assert "forces" in read(path, labels={"energy": None})[0].labels


def test_a_label_that_is_nowhere_is_told_with_what_there_is(tmp_path):
    path = extxyz(tmp_path / "a.extxyz", [alloy(0)])
    with pytest.raises(ConfigError, match=r"labels.bandgap: no structure of .* has 'gap'; there are: .*energy"):
        read(path, labels={"bandgap": "gap"})


def test_each_label_is_optional_in_each_structure(tmp_path):
    frames = [alloy(0), relabeled(alloy(1), stress=None), relabeled(alloy(2), forces=None, stress=None)]
    labels = [set(s.labels) for s in read(extxyz(tmp_path / "a.extxyz", frames))]
    assert labels == [{"energy", "forces", "stress"}, {"energy", "forces"}, {"energy"}]


def test_a_calculator_that_could_compute_is_not_asked(tmp_path):
    atoms = alloy(0)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    assert set(read(extxyz(tmp_path / "a.extxyz", [atoms]))[0].labels) == {"energy"}


@pytest.mark.parametrize("name", ["a.traj", "a.trj", "a", "a.json"])
def test_a_trajectory_of_pickles_is_not_opened(name, tmp_path):
    class Ran:
        def __reduce__(self):
            return ((tmp_path / "ran").touch, ())

    (tmp_path / name).write_bytes(b"PickleTrajectory" + pickle.dumps(Ran()))
    for options in ({}, {"format": "trj"}):
        with pytest.raises(DataError, match="is an old trajectory of pickles"):
            read(tmp_path / name, **options)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("energy", b"abc"), ("energy", "x"), ("numbers", b"abc"), ("positions", b""), ("cell", "x"), ("cell", b"abc"),
        ("forces", b"\0" * 999), ("constraints", "[1,2"), ("constraints", '{"__ase_objtype__": "os.system"}'),
        ("key_value_pairs", '{"__ase_objtype__": "vibrationsdata"}'), ("key_value_pairs", '{"stress": [1, 2]}'),
    ],
)  # fmt: skip
def test_a_crafted_database_ends_in_one_sentence(column, value, tmp_path):
    connect(tmp_path / "a.db").write(relabeled(alloy(0), stress=None))
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute(f"update systems set {column} = ?", (value,))
        database.commit()
    with pytest.raises((DataError, ConfigError), match=r"a\.db@0"):
        read(tmp_path / "a.db")


def test_text_of_another_program_than_its_ending_says_is_no_empty_file(tmp_path):
    file = tmp_path / "md.out"
    file.write_text("| Number of atoms : 3\nSelf-consistency cycle converged.\n")
    with pytest.raises(DataError, match=r"no structure is found in it, read as espresso-out; format=NAME"):
        list(read_frames(str(file), FormatOptions(), 0))
    with pytest.raises(ConfigError, match=r"format: .*did you mean 'aims-output'"):
        list(read_frames(str(file), FormatOptions(format="aims-outputs"), 0))
