"""Arrays in ``.npz`` and HDF5, in the layouts that the field writes.

Each holds positions and elements of frames: all in one (rMD17, sGDML, NequIP), a group for each composition (ANI,
torchmd-net), or a group for each structure (MACE). DeepMD-kit's HDF5 is a group for each system, as its folders are.
Elements are one list for all frames or one for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from domains.materials.data.aliases import meaning
from domains.materials.data.labels import ANGSTROMS, PER_ATOM, Stated
from domains.materials.data.readers.deepmd import deepmd_frames
from domains.materials.data.readers.frames import make_atoms, state_units, text
from sciml.core.errors import DataError
from sciml.data.hdf5_check import check_hdf5

if TYPE_CHECKING:
    from ase import Atoms

Array = np.ndarray
POSITIONS = ("positions", "coordinates", "coords", "coord", "pos", "R", "conformations")
SPECIES = ("atomic_numbers", "numbers", "species", "nuclear_charges", "elements", "symbols", "types", "atoms", "z", "Z")
CELLS = ("cell", "cells", "lattice", "lattices", "box")
FILLING = (0, -1)
ENERGIES = ("E", "e")
"""Names of an energy that are too short to mean one elsewhere."""


def read_npz(file: str, start: int = 0) -> Iterator[Atoms]:
    """Yields the structures of a ``.npz``, from number ``start`` on.

    Raises:
        DataError: no positions and elements are in it.
    """
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    yield from _frames_of(arrays, file, "", start)


def read_hdf5(file: str, start: int = 0) -> Iterator[Atoms]:
    """Yields the structures of an HDF5 file, group by group, from number ``start`` on.

    Raises:
        DataError: no positions and elements are in it, or it reaches beyond itself.
    """
    import h5py

    check_hdf5(file)
    count = 0
    with h5py.File(file, "r", locking=False) as opened:
        for name, frames in _groups(opened, file):
            for atoms in frames():
                if count >= start:
                    if "config_type" not in atoms.info:
                        atoms.info.setdefault("group", name)
                    yield atoms
                count += 1
    if not count:
        raise DataError(f"{file}: no group holds {_wanted()}")


def _groups(group: Any, file: str) -> Iterator[tuple[str, Callable[[], Iterator[Atoms]]]]:
    """Yields every group that holds structures, with its name."""
    import h5py

    name = group.name.strip("/").replace("/", "-")
    datasets = {key: item for key, item in group.items() if isinstance(item, h5py.Dataset)}
    if "type.raw" in datasets:
        yield name, lambda: deepmd_frames(_deepmd_arrays(group))
        return
    if _named(datasets, POSITIONS) and _named(datasets, SPECIES):
        below = [item for key, item in group.items() if isinstance(item, h5py.Group) and "weight" not in key]
        datasets |= {key: item for one in below for key, item in one.items() if isinstance(item, h5py.Dataset)}
        yield name.split("-")[0], lambda: _frames_of({key: item[()] for key, item in datasets.items()}, file, name, 0)
        return
    for key in sorted(group, key=lambda one: (len(one), one)):  # config_2 before config_10
        if isinstance(group[key], h5py.Group):
            yield from _groups(group[key], file)


def _deepmd_arrays(group: Any) -> dict[str, Array]:
    arrays: dict[str, list[Array]] = {}
    for key in sorted(group):
        if key.startswith("set."):
            for name, item in group[key].items():
                arrays.setdefault(name.removesuffix(".npy"), []).append(item[()])
    whole = {name: np.concatenate(parts) for name, parts in arrays.items()}
    return {**whole, **{name: group[name][()] for name in ("type.raw", "type_map.raw", "nopbc") if name in group}}


def _frames_of(arrays: Mapping[str, Array], file: str, name: str, start: int) -> Iterator[Atoms]:
    where = f"{file}: {name}" if name else file
    place, kind = _named(arrays, POSITIONS), _named(arrays, SPECIES)
    if place is None or kind is None:
        raise DataError(f"{where}: it holds {', '.join(arrays)}; needed are {_wanted()}")
    positions, species, box = np.asarray(arrays[place]), np.asarray(arrays[kind]), _named(arrays, CELLS)
    positions = positions[None] if positions.ndim == 2 else positions
    frames = len(positions)
    energy, length = _units(arrays)
    rest = {key: value for key, value in arrays.items() if key not in (place, kind, box, "pbc")}
    stated, angstroms = _stated(rest, energy, length), ANGSTROMS[length or "A"]
    single = np.asarray(arrays[place]).ndim == 2
    for number in range(start, frames):
        kinds = species if species.ndim == 1 else species[number]
        there = np.array([_is_atom(one) for one in kinds])  # those of smaller structures are filled up with zeros
        cell = None if box is None else _row(np.asarray(arrays[box]), frames, number, single, 2)
        pbc = None if "pbc" not in arrays else _row(np.asarray(arrays["pbc"]), frames, number, single, 1)
        entries = {key: _entry(key, value, frames, number, single, there) for key, value in rest.items()}
        known = {key: value for key, value in entries.items() if value is not None}
        cell = None if cell is None or not np.isfinite(cell).all() else cell * angstroms
        made = make_atoms(kinds[there], positions[number][there] * angstroms, cell, pbc=pbc, entries=known)
        state_units(made, stated)
        yield made


def _units(arrays: Mapping[str, Array]) -> tuple[str | None, str | None]:
    """Returns the units of energies and lengths; kcal/mol where a file says so, or is of the rMD17 set, and None where
    it says none that differs from the suite's.
    """
    said = " ".join(text(np.asarray(arrays[name]).item()) for name in ("e_unit", "r_unit") if name in arrays).lower()
    kcal = "kcal" in said or "old_indices" in arrays or "old_energies" in arrays
    hartree = "hartree" in said
    return ("kcal/mol" if kcal else "Ha" if hartree else None), ("Bohr" if "bohr" in said else None)


def _stated(names: Iterable[str], energy: str | None, length: str | None) -> dict[str, Stated]:
    """Returns what a file says of its energies and forces, in the units that it has."""
    stated = {name: Stated(energy, label="energy") for name in names if name in ENERGIES}
    unsaid = energy is None and length is None
    for name in names:
        means = meaning(name)
        if unsaid and means is not None:
            stated[name] = Stated()
        elif means is not None and means.label == "energy":
            stated[name] = Stated(f"{energy or 'eV'}{PER_ATOM if means.unit else ''}")
        elif means is not None and means.label == "forces":
            stated[name] = Stated(f"{energy or 'eV'}/{length or 'A'}")
    return stated


def _row(array: Array, frames: int, number: int, single: bool, dims: int) -> Array:
    """Returns a frame's own part of an array that may be one for all."""
    return array[number] if not single and array.ndim == dims + 1 and len(array) == frames else array


def _entry(name: str, value: Array, frames: int, number: int, single: bool, there: Array) -> Any:
    """Returns a frame's own part of an entry, without the atoms that smaller structures are filled up with."""
    array, atoms = np.asarray(value), len(there)
    if array.dtype.kind not in "fiub":
        whole = array.ravel()
        return text(whole[0]) if whole.size == 1 and text(whole[0]) != "None" else None
    own = array if single or array.ndim == 0 or len(array) != frames else array[number]
    if own.ndim and len(own) == atoms and not there.all() and _is_of_atoms(name, own, there):
        own = own[there]
    return own.item() if own.size == 1 and own.ndim <= 1 and atoms > 1 else own


def _is_of_atoms(name: str, own: Array, there: Array) -> bool:
    """Says whether as many values as atoms belong to these: a stress may have as many. Where the name does not tell,
    zeros, minus ones or no numbers stand where there are no atoms.
    """
    means = meaning(name)
    if means is not None and means.label in ("forces", "stress"):
        return means.label == "forces"
    filled = own[~there]
    return filled.dtype.kind not in "fiu" or bool((~np.isfinite(filled) | np.isin(filled, FILLING)).all())


def _named(arrays: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in arrays), None)


def _is_atom(kind: Any) -> bool:
    return text(kind) not in ("", "0", "-1")


def _wanted() -> str:
    return f"positions ({', '.join(POSITIONS)}) and elements ({', '.join(SPECIES)})"
