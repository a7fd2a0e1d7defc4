"""LAMMPS's dumps and data files have the elements that are named, and no energy of their own."""

from __future__ import annotations

import numpy as np
import pytest
from ase.io import write

from domains.materials.data.readers.source import ReadOptions, read_frames
from sciml.core.errors import ConfigError, DataError

from .alloy_files import alloy
from .test_readers import read


def dump(path, frames, columns="id type xu yu zu fx fy fz c_pe"):
    """LAMMPS's text dump: copper is type 1, nickel type 2, atoms in the order of their numbers."""
    with path.open("w") as file:
        for step, atoms in enumerate(frames):
            bounds = "".join(f"0 {length:.8f}\n" for length in atoms.cell.lengths())
            file.write(f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n")
            file.write(f"ITEM: BOX BOUNDS pp pp pp\n{bounds}ITEM: ATOMS {columns}\n")
            energy = atoms.get_potential_energy() / len(atoms)
            for n, symbol in enumerate(atoms.symbols):
                kind = f"{1 if symbol == 'Cu' else 2}" + (f" {symbol}" if "element" in columns else "")
                numbers = " ".join(f"{value:.9f}" for value in (*atoms.positions[n], *atoms.get_forces()[n], energy))
                file.write(f"{n + 1} {kind} {numbers}\n")
    return path


def test_dumps_of_lammps_have_the_elements_that_are_named_and_no_energy(tmp_path):
    frames = [alloy(n) for n in range(2)]
    named = dump(tmp_path / "a.lammpstrj", frames, "id type element xu yu zu fx fy fz c_pe")
    typed = dump(tmp_path / "b.lammpstrj", frames)
    with pytest.raises(DataError, match=r"a.lammpstrj@0: forces without energy .*c_pe.* labels.energy=KEY"):
        read(named)
    assert set(read(named, labels={"energy": None})[0].labels) == {"forces"}
    with pytest.raises(ConfigError, match=r"species: .*b.lammpstrj numbers its elements from 1 .*species=\[Cu,Ni\]"):
        read(typed, labels={"energy": "c_pe"})
    with pytest.raises(ConfigError, match=r"species: .*b.lammpstrj@0 has the types 1 to 2"):
        read(typed, labels={"energy": "c_pe"}, species=["Cu"])
    for path, species in ((named, None), (typed, ["Cu", "Ni"])):
        found = read(path, labels={"energy": "c_pe"}, species=species)
        for structure, atoms in zip(found, frames, strict=True):
            np.testing.assert_array_equal(structure.atomic_numbers, atoms.numbers)
            np.testing.assert_allclose(structure.positions, atoms.positions, atol=1e-7)
            np.testing.assert_allclose(structure.labels["forces"], atoms.get_forces(), atol=1e-7)
            assert structure.labels["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)


def test_data_files_of_lammps_take_types_for_what_they_are(tmp_path):
    atoms = alloy(0)
    write(tmp_path / "a.data", atoms, format="lammps-data", specorder=["Cu", "Ni"])
    write(tmp_path / "b.data", atoms, format="lammps-data", specorder=["Cu", "Ni"], masses=True)
    with pytest.raises(ConfigError, match="numbers its elements from 1"):
        next(read_frames(str(tmp_path / "a.data"), ReadOptions(format="lammps-data"), 0))
    for name, species in (("a", ["Cu", "Ni"]), ("b", None)):
        options = ReadOptions(format="lammps-data", species=species)
        found = next(read_frames(str(tmp_path / f"{name}.data"), options, 0))
        assert found.symbols.get_chemical_formula() == atoms.symbols.get_chemical_formula()
