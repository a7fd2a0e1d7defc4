"""Lists the files that a path stands for and their formats, and opens compressed ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from sciml.data import files

COMPRESSED = (".gz", ".xz", ".bz2")
BY_SUFFIX = {
    ".extxyz": "extxyz",
    ".xyz": "extxyz",
    ".db": "db",
    ".traj": "traj",
    ".json": "json",
    ".jsonl": "json",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".aselmdb": "aselmdb",
    ".lmdb": "aselmdb",
    ".castep": "castep-castep",
}
BY_NAME = {"vasprun": "vasp-xml", "OUTCAR": "vasp-out"}
TEXT_SUFFIXES = ("", ".txt", ".dat", ".lsms", ".out", ".log", ".pwo", ".abo")
OUTPUTS = ("abinit-out", "aims-output", "espresso-out", "gpaw-out")
"""ASE's names of outputs that are known by how they begin; a file of these may begin with a copy of its input, too."""
KNOWN = (
    "extxyz, ASE's db, json, traj and aselmdb, vasprun.xml, OUTCAR, outputs of Quantum ESPRESSO, ABINIT, FHI-aims, "
    "CASTEP and GPAW, JSON of pymatgen and FitSNAP, npz, HDF5, "
    "folders of DeepMD-kit, MLIP and AtomEye cfg, LAMMPS dumps, LSMS text"
)
"""Formats, for messages."""
SNIFFED_CHARACTERS = 4096


def locate(path: str | Sequence[str]) -> list[str]:
    """Returns the files that a path stands for, sorted; for a folder those in all folders below it.

    Raises:
        DataError: there is none.
    """
    kinds = f"file with structures ({KNOWN})"
    return files.locate(path, in_folder=_in_folder, kinds=kinds)


def _in_folder(folder: Path) -> list[str]:
    inside = [entry for entry in sorted(folder.rglob("*")) if entry.is_file() and not entry.name.startswith(".")]
    kinds = {entry: kind for entry in inside if (kind := format_of(str(entry))) is not None}
    if any(kind != "json" for kind in kinds.values()):  # else JSON says something about the data and is none
        kinds = {entry: kind for entry, kind in kinds.items() if kind != "json"}
    with_rows = {entry.parent for entry, kind in kinds.items() if kind == "aselmdb"}
    with_xml = {entry.parent for entry in kinds if entry.name.startswith("vasprun")}
    with_sets = {entry.parent.parent for entry in kinds if entry.name == "coord.npy"}
    # one VASP run writes both, with the same structures in them; so may a system of DeepMD-kit
    doubled = {entry for entry in kinds if entry.name.startswith("OUTCAR") and entry.parent in with_xml}
    doubled |= {entry for entry in kinds if entry.name == "coord.raw" and entry.parent in with_sets}
    # beside ASE's rows fairchem keeps how many atoms each has
    doubled |= {entry for entry, kind in kinds.items() if kind == "npz" and entry.parent in with_rows}
    return [str(entry) for entry in kinds if entry not in doubled]


def format_of(file: str) -> str | None:
    """Returns ASE's name of a file's format, or one of ours (``mtp``, ``cfg`` of AtomEye, ``lsms``, ``json``, ``npz``,
    ``hdf5``, ``aselmdb``, ``deepmd``); None where it is none of these.
    """
    path = Path(file)
    bare = path.with_suffix("") if path.suffix in COMPRESSED else path
    for start, name in BY_NAME.items():
        if bare.name.startswith(start) or bare.name.endswith(start):
            return name
    if path.name in ("coord.npy", "coord.raw"):
        system = path.parent if path.suffix == ".raw" else path.parent.parent
        return "deepmd" if (system / "type.raw").exists() else None
    if bare.suffix in BY_SUFFIX:
        return BY_SUFFIX[bare.suffix]
    if bare.suffix == ".cfg":
        return "mtp" if "BEGIN_CFG" in _start(file) else "cfg"
    if bare.suffix in TEXT_SUFFIXES:
        start = _start(file)
        return "lsms" if _is_lsms(start) else _output_of(start)
    return None


def open_text(file: str) -> IO[str]:
    """Opens a file's text, decompressed on the way."""
    from ase.io.formats import open_with_compression

    opened: IO[str] = open_with_compression(file, "r")
    return opened


def _start(file: str) -> str:
    try:
        with open_text(file) as text:
            return text.read(SNIFFED_CHARACTERS)
    except (OSError, EOFError, UnicodeDecodeError):
        return ""


def _output_of(text: str) -> str | None:
    """Returns ASE's name of the output that begins so; None where it is none of :data:`OUTPUTS`."""
    from ase.io.formats import ioformats

    return next((name for name in OUTPUTS if ioformats[name].match_magic(text.encode())), None)


def _is_lsms(text: str) -> bool:
    """Says whether the first two lines hold numbers alone: those of the structure, and at least seven of the
    first atom.
    """
    lines = text.splitlines()
    if len(lines) < 2:
        return False
    try:
        first, second = ([float(word) for word in line.split()] for line in lines[:2])
    except ValueError:
        return False
    return bool(first) and len(second) >= 7 and second[0] == int(second[0]) > 0
