"""Lays a store on disk: a folder of ``.npy`` arrays that are read by memory map, and JSON.

Everything of all structures stands one after the other; offsets say where one begins. Counts of atoms and edges so are
read without the rest.

    store.json   format, version, schema (elements, cutoff, labels, branches, title), what was found, sources
    statistics.safetensors   of the training split
    atom_offsets, edge_offsets, name_offsets (structure + 1)
    cell, pbc, branch, group, source, key, split (structure)
    atomic_numbers, positions (atom)       senders, receivers, shifts (edge)       names (byte)      groups.json
    labels/NAME (structure or atom)        labels/NAME.mask (structure)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sciml.core.errors import DataError
from sciml.core.files import read_json

FORMAT = "sciml-materials-store"
VERSION = 1
STORE, STATISTICS, GROUPS, LABELS = "store.json", "statistics.safetensors", "groups.json", "labels"

ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "atom_offsets": ("<i8", ()),
    "edge_offsets": ("<i8", ()),
    "name_offsets": ("<i8", ()),
    "cell": ("<f8", (3, 3)),
    "pbc": ("|b1", (3,)),
    "branch": ("<i2", ()),
    "group": ("<i4", ()),
    "source": ("<i4", ()),
    "key": ("<i8", ()),
    "atomic_numbers": ("|u1", ()),
    "positions": ("<f8", (3,)),
    "senders": ("<i4", ()),
    "receivers": ("<i4", ()),
    "shifts": ("|i1", (3,)),
    "names": ("|u1", ()),
}
"""Name, type and shape of a row. ``source`` numbers the file, ``key`` is the same for frames that are the same."""


def array_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def label_path(folder: Path, name: str) -> Path:
    return folder / LABELS / f"{name}.npy"


def mask_path(folder: Path, name: str) -> Path:
    return folder / LABELS / f"{name}.mask.npy"


def read_header(path: str | Path) -> dict[str, Any] | None:
    """Reads ``store.json``; returns None where the folder is no store of this project."""
    try:
        header: dict[str, Any] = read_json(Path(path) / STORE, dict[str, Any])
    except DataError:
        return None
    return header if header.get("format") == FORMAT else None


def is_store(path: str | Path) -> bool:
    """Says whether a path is a store of this project."""
    return read_header(path) is not None
