"""Arrays in ``.npz`` and HDF5, in the layouts that the field writes.

Each holds positions and elements of frames: all in one (rMD17, sGDML, NequIP), a group for each composition (ANI,
torchmd-net), or a group for each structure (MACE). DeepMD-kit's HDF5 is a group for each system, as its folders are.
Elements are one list for all frames or one for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from domains.materials.data.readers.deepmd import deepmd_frames
from domains.materials.data.readers.frames import make_atoms, text
from sciml.core.errors import DataError
from sciml.data.hdf5_check import check_hdf5

if TYPE_CHECKING:
    from ase import Atoms

Array = np.ndarray
POSITIONS = ("positions", "coordinates", "coords", "coord", "pos", "R", "conformations")
SPECIES = ("atomic_numbers", "numbers", "species", "nuclear_charges", "elements", "symbols", "types", "atoms", "z", "Z")
CELLS = ("cell", "cells", "lattice", "lattices", "box")
SHORT = {"E": "energy", "F": "forces", "e": "energy", "f": "forces", "energies": "energy", "stresses": "stress"}
KCAL = 0.0433641
"""eV of a kcal/mol."""


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
    frames, atoms = positions.shape[:2]
    scale, length = _units(arrays)
    rest = {SHORT.get(key, key): value for key, value in arrays.items() if key not in (place, kind, box, "pbc")}
    single = np.asarray(arrays[place]).ndim == 2
    for number in range(start, frames):
        kinds = species if species.ndim == 1 else species[number]
        there = np.array([_is_atom(one) for one in kinds])  # those of smaller structures are filled up with zeros
        cell = None if box is None else _row(np.asarray(arrays[box]), frames, number, single, 2)
        pbc = None if "pbc" not in arrays else _row(np.asarray(arrays["pbc"]), frames, number, single, 1)
        entries = {key: _entry(value, frames, number, single, atoms, there) for key, value in rest.items()}
        known = {key: value for key, value in entries.items() if value is not None}
        for label in {"energy", "forces"} & known.keys():
            known[label] = known[label] * scale / (length if label == "forces" else 1.0)
        cell = None if cell is None or not np.isfinite(cell).all() else cell * length
        yield make_atoms(kinds[there], positions[number][there] * length, cell, pbc=pbc, entries=known)


def _units(arrays: Mapping[str, Array]) -> tuple[float, float]:
    """Returns what an energy is in eV and a length in A; kcal/mol where a file says so, or is of the rMD17 set."""
    said = " ".join(text(np.asarray(arrays[name]).item()) for name in ("e_unit", "r_unit") if name in arrays).lower()
    kcal = "kcal" in said or "old_indices" in arrays or "old_energies" in arrays
    hartree = "hartree" in said
    return (KCAL if kcal else 27.211386 if hartree else 1.0), (0.529177 if "bohr" in said else 1.0)


def _row(array: Array, frames: int, number: int, single: bool, dims: int) -> Array:
    """Returns a frame's own part of an array that may be one for all."""
    return array[number] if not single and array.ndim == dims + 1 and len(array) == frames else array


def _entry(value: Array, frames: int, number: int, single: bool, atoms: int, there: Array) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        whole = array.ravel()
        return text(whole[0]) if whole.size == 1 and text(whole[0]) != "None" else None
    own = array if single or array.ndim == 0 or len(array) != frames else array[number]
    if own.ndim and len(own) == atoms and not there.all():
        own = own[there]
    return own.item() if own.size == 1 and own.ndim <= 1 and atoms > 1 else own


def _named(arrays: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in arrays), None)


def _is_atom(kind: Any) -> bool:
    return text(kind) not in ("", "0", "-1")


def _wanted() -> str:
    return f"positions ({', '.join(POSITIONS)}) and elements ({', '.join(SPECIES)})"
