"""Systems of DeepMD-kit: folders of ``.npy`` or ``.raw`` arrays for frames of one composition.

``type.raw`` numbers the elements of ``type_map.raw``; ``set.*/coord.npy`` (frame, 3 atoms) A, ``box.npy`` (frame, 9),
``energy.npy`` eV, ``force.npy`` eV/A, ``virial.npy`` eV (minus ASE's stress times volume), ``real_atom_types.npy``
where frames differ in composition, and a file ``nopbc`` where nothing repeats.
Source of the format: https://docs.deepmodeling.com/projects/deepmd/en/stable/data/system.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from domains.materials.data.key_names import typed
from domains.materials.data.labels import VIRIAL, Stated
from domains.materials.data.readers.frames import make_atoms, state_units, text
from sciml.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ase import Atoms

Array = np.ndarray
LABELS = ("box", "energy", "force", "virial", "real_atom_types", "atom_ener", "atom_pref", "dipole", "aparam", "fparam")

STATED = {"energy": Stated("eV"), "force": Stated("eV/A"), "virial": Stated(VIRIAL)}


def read_deepmd(file: str, species: Sequence[str] | None, start: int = 0) -> Iterator[Atoms]:
    """Yields the structures of a set, from number ``start`` on.

    Args:
        file: the set's ``coord.npy``, or a system's ``coord.raw``.
        species: elements of types 0, 1, ... where no ``type_map.raw`` names them.

    Raises:
        ConfigError: elements are nowhere named.
        DataError: arrays that do not fit one another.
    """
    coordinates = Path(file)
    raw = coordinates.suffix == ".raw"
    system = coordinates.parent if raw else coordinates.parent.parent
    arrays: dict[str, Any] = {"coord": _array(coordinates)}
    for name in LABELS:
        beside = coordinates.with_name(f"{name}{coordinates.suffix}")
        if beside.exists():
            arrays[name] = _array(beside)
    arrays["type.raw"] = np.loadtxt(system / "type.raw", dtype=int, ndmin=1)
    if (system / "type_map.raw").exists():
        arrays["type_map.raw"] = (system / "type_map.raw").read_text().split()
    elif species:
        arrays["type_map.raw"] = list(species)
    if (system / "nopbc").exists():
        arrays["nopbc"] = True
    for number, atoms in enumerate(deepmd_frames(arrays, file)):
        if number >= start:
            atoms.info["group"] = system.name
            yield atoms


def deepmd_frames(arrays: Mapping[str, Any], where: str = "") -> Iterator[Atoms]:
    """Yields the frames of a system.

    Args:
        arrays: by the names that its files have.
    """
    if arrays.get("type_map.raw") is None:
        raise ConfigError(
            f"{where} numbers its elements from 0 and does not name them",
            key=typed("species"),
            hint=f"e.g. {typed('species')}=[Nb,Ta]",
        )
    names = [text(one) for one in np.asarray(arrays["type_map.raw"]).ravel().tolist()]
    types = np.asarray(arrays["type.raw"], dtype=int).ravel()
    frames = len(arrays["coord"])
    for name, values in arrays.items():
        if name in LABELS and len(values) != frames:
            raise DataError(f"{where}: {name} has {len(values)} frames, coord has {frames}")
    for number in range(frames):
        kinds = np.asarray(arrays["real_atom_types"][number], dtype=int) if "real_atom_types" in arrays else types
        if kinds.max() >= len(names):
            raise DataError(f"{where}: type {kinds.max()} is none of the {len(names)} in type_map.raw")
        there = kinds >= 0
        box = None if arrays.get("nopbc") is not None or "box" not in arrays else arrays["box"][number]
        entries = {name: arrays[name][number] for name in LABELS[5:] if name in arrays}
        if "energy" in arrays:
            entries["energy"] = float(np.ravel(arrays["energy"][number])[0])
        if "force" in arrays:
            entries["force"] = np.reshape(arrays["force"][number], (-1, 3))[there]
        if "virial" in arrays and box is not None:
            entries["virial"] = np.reshape(arrays["virial"][number], (3, 3))
        positions = np.reshape(arrays["coord"][number], (-1, 3))[there]
        atoms = make_atoms([names[kind] for kind in kinds[there]], positions, box, entries=entries)
        state_units(atoms, STATED)
        yield atoms


def _array(path: Path) -> Array:
    if path.suffix == ".npy":
        return np.atleast_1d(np.load(path, allow_pickle=False))
    return np.atleast_1d(np.loadtxt(path, ndmin=1 if path.stem == "energy" else 2))
