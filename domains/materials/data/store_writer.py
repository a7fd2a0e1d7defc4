"""A store that grows structure by structure, in blocks of which a ledger keeps account."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from domains.materials.data import store_layout as layout
from domains.materials.data.append_npy import GrowingArray
from domains.materials.data.labels import NODE, SHAPES, UNITS, level_of
from domains.materials.data.neighbors import NeighborList
from domains.materials.data.structure import Structure
from sciml.core.errors import DataError
from sciml.core.files import write_json

LEDGER = "ledger.json"
POSITION_DIGITS = 4


class StoreWriter:
    """The hidden folder in which a store grows.

    Attributes:
        folder: the folder.
        ledger: identity of the work, places reached, rows of each array, labels, groups and sources so far.
    """

    def __init__(self, folder: Path, ledger: dict[str, Any]) -> None:
        self.folder, self.ledger = folder, ledger
        rows = ledger["rows"]
        self.arrays = {
            name: GrowingArray(layout.array_path(folder, name), *spec, rows=rows.get(name, 0))
            for name, spec in layout.ARRAYS.items()
        }
        self.groups = {name: number for number, name in enumerate(ledger["groups"])}
        for name in ("atom_offsets", "edge_offsets", "name_offsets"):
            self.arrays[name].extend_zeros(1)
        self._labels: dict[str, tuple[GrowingArray, GrowingArray]] = {}
        for name in ledger["labels"]:
            self._open_label(name, rows[f"{name}.label"], rows[f"{name}.mask"])

    @classmethod
    def open(cls, folder: Path, identity: str) -> StoreWriter:
        """The folder as an interrupted run of the same work left it, or an empty one."""
        try:
            ledger = json.loads((folder / LEDGER).read_text())
        except (OSError, ValueError):
            ledger = {}
        if ledger.get("identity") != identity:
            shutil.rmtree(folder, ignore_errors=True)
            (folder / layout.LABELS).mkdir(parents=True)
            fresh: dict[str, Any] = {"rows": {}, "labels": {}, "groups": [], "places": {}, "sources": []}
            ledger = {"identity": identity, **fresh}
        return cls(folder, ledger)

    @property
    def num_structures(self) -> int:
        return self.arrays["cell"].rows

    def append(self, structure: Structure, neighbors: NeighborList, source: str) -> None:
        """Adds a structure with its edges.

        Raises:
            DataError: atoms so far outside their cell that shifts do not fit; labels whose shapes differ.
        """
        if len(neighbors) and np.abs(neighbors.shifts).max() > np.iinfo(np.int8).max:
            raise DataError(f"{structure.name}: atoms lie more than 127 cells apart; wrap them into their cell")
        if source not in self.ledger["sources"]:
            self.ledger["sources"].append(source)
        group = self.groups.setdefault(structure.group, len(self.groups))
        name = np.frombuffer(structure.name.encode(), dtype=np.uint8)
        one = {
            "cell": structure.cell,
            "pbc": structure.pbc,
            "branch": structure.branch,
            "group": group,
            "source": self.ledger["sources"].index(source),
            "key": frame_key(structure),
        }
        many = {
            "atomic_numbers": structure.atomic_numbers,
            "positions": structure.positions,
            "senders": neighbors.senders,
            "receivers": neighbors.receivers,
            "shifts": neighbors.shifts,
            "names": name,
        }
        self._append_labels(structure)
        for key, value in one.items():
            self.arrays[key].append(np.asarray(value)[None])
        for key, value in many.items():
            self.arrays[key].append(value)
        for offsets, counted in (("atom", "positions"), ("edge", "senders"), ("name", "names")):
            self.arrays[f"{offsets}_offsets"].append(np.array([self.arrays[counted].rows]))

    def _append_labels(self, structure: Structure) -> None:
        for name, value in structure.labels.items():
            if name not in self.ledger["labels"]:
                level = level_of(name, value, len(structure))
                shape = list(SHAPES.get(name, value.shape[1:] if level == NODE else value.shape))
                self.ledger["labels"][name] = {"level": level, "shape": shape, "unit": UNITS.get(name, "")}
                self._open_label(name, 0, 0)
            shape, level = (self.ledger["labels"][name][key] for key in ("shape", "level"))
            wanted = (len(structure), *shape) if level == NODE else tuple(shape)
            if value.shape != wanted:
                raise DataError(f"{structure.name}: {name} has the shape {value.shape}, others have {wanted}")
            values, mask = self._labels[name]
            atoms = level == NODE
            values.extend_zeros(self.arrays["positions"].rows if atoms else self.num_structures)
            mask.extend_zeros(self.num_structures)
            values.append(value if atoms else value[None])
            mask.append(np.array([True]))

    def _open_label(self, name: str, rows: int, masked: int) -> None:
        values = GrowingArray(
            layout.label_path(self.folder, name), "<f8", tuple(self.ledger["labels"][name]["shape"]), rows
        )
        self._labels[name] = values, GrowingArray(layout.mask_path(self.folder, name), "|b1", (), masked)

    def note(self, branch: int, place: tuple[int, int]) -> None:
        """Makes everything so far count: an interrupted run goes on behind it.

        Args:
            place: of the next structure of the branch: number of the file and number in it.
        """
        arrays = {name: array for name, array in self.arrays.items()}
        for name, (values, mask) in self._labels.items():
            arrays |= {f"{name}.label": values, f"{name}.mask": mask}
        for array in arrays.values():
            array.flush()
        self.ledger["places"][str(branch)] = list(place)
        self.ledger["groups"] = list(self.groups)
        self.ledger["rows"] = {name: array.rows for name, array in arrays.items()}
        write_json(self.folder / LEDGER, self.ledger)

    def place(self, branch: int) -> tuple[int, int]:
        """Where to go on in a branch."""
        file, number = self.ledger["places"].get(str(branch), (0, 0))
        return file, number

    def finish(self) -> None:
        """Brings all labels to the same length and closes the files."""
        for name, (values, mask) in self._labels.items():
            atoms = self.ledger["labels"][name]["level"] == NODE
            values.extend_zeros(self.arrays["positions"].rows if atoms else self.num_structures)
            mask.extend_zeros(self.num_structures)
        self.close()
        write_json(self.folder / layout.GROUPS, list(self.groups))

    def close(self) -> None:
        """Closes the files; what was not noted is cut off when they are opened again."""
        for array in (*self.arrays.values(), *(array for pair in self._labels.values() for array in pair)):
            array.close()

    def remove(self) -> None:
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def frame_key(structure: Structure) -> int:
    """A number that is the same for frames that are the same: elements, cell and places to 1e-4 A, in their order."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(structure.atomic_numbers.astype("<i8").tobytes())
    for array in (structure.cell, structure.positions):
        digest.update((np.round(array, POSITION_DIGITS) + 0.0).astype("<f8").tobytes())  # + 0.0: no minus zero
    digest.update(structure.pbc.tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)
