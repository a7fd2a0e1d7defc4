"""Writes a store structure by structure, in blocks that the journal of its staging folder confirms."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from domains.materials.data import store_layout as layout
from domains.materials.data.append_npy import GrowingArray
from domains.materials.data.findings import Findings
from domains.materials.data.labels import NODE, SHAPES, UNITS, level_of
from domains.materials.data.neighbors import NeighborList
from domains.materials.data.structure import Structure
from sciml.core.errors import DataError
from sciml.core.files import write_json
from sciml.data.staging import Staging

POSITION_DIGITS = 4


class StoreWriter:
    """Writes a store structure by structure; what :meth:`record` has confirmed survives an interruption.

    Args:
        staging: where the store grows.

    Attributes:
        folder: the growing store.
        labels: level, shape and unit of each label met so far.
        sources: files met so far.
        findings: what was found in them.
    """

    def __init__(self, staging: Staging) -> None:
        self.staging, self.folder = staging, staging.store
        journal = staging.journal
        rows = journal.get("rows", {})
        self.labels: dict[str, dict[str, Any]] = dict(journal.get("labels", {}))
        self.sources: list[str] = list(journal.get("sources", ()))
        self.findings = Findings.from_dict(journal.get("findings", {}))
        self.positions: dict[str, list[int]] = dict(journal.get("positions", {}))
        self.groups = {name: number for number, name in enumerate(journal.get("groups", ()))}
        (self.folder / layout.LABELS).mkdir(parents=True, exist_ok=True)
        self.arrays = {
            name: GrowingArray(layout.array_path(self.folder, name), *spec, rows=rows.get(name, 0))
            for name, spec in layout.ARRAYS.items()
        }
        for name in ("atom_offsets", "edge_offsets", "name_offsets"):
            self.arrays[name].extend_zeros(1)
        self._labels: dict[str, tuple[GrowingArray, GrowingArray]] = {}
        for name in self.labels:
            self._open_label(name, rows[f"{name}.label"], rows[f"{name}.mask"])

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
        self._check_labels(structure)
        if source not in self.sources:
            self.sources.append(source)
        group = self.groups.setdefault(structure.group, len(self.groups))
        name = np.frombuffer(structure.name.encode(), dtype=np.uint8)
        one = {
            "cell": structure.cell,
            "pbc": structure.pbc,
            "branch": structure.branch,
            "group": group,
            "source": self.sources.index(source),
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

    def _check_labels(self, structure: Structure) -> None:
        """Refuses labels of other shapes than before; the first ones decide.

        Raises:
            DataError: naming the structure; nothing of it is written yet.
        """
        for name, value in structure.labels.items():
            if name in self.labels and value.shape != self._wanted(name, len(structure)):
                wanted = self._wanted(name, len(structure))
                raise DataError(f"{structure.name}: {name} has the shape {value.shape}, others have {wanted}")

    def _wanted(self, name: str, num_atoms: int) -> tuple[int, ...]:
        shape = tuple(self.labels[name]["shape"])
        return (num_atoms, *shape) if self.labels[name]["level"] == NODE else shape

    def _append_labels(self, structure: Structure) -> None:
        for name, value in structure.labels.items():
            if name not in self.labels:
                level = level_of(name, value, len(structure))
                shape = list(SHAPES.get(name, value.shape[1:] if level == NODE else value.shape))
                self.labels[name] = {"level": level, "shape": shape, "unit": UNITS.get(name, "")}
                self._open_label(name, 0, 0)
            values, mask = self._labels[name]
            atoms = self.labels[name]["level"] == NODE
            values.extend_zeros(self.arrays["positions"].rows if atoms else self.num_structures)
            mask.extend_zeros(self.num_structures)
            values.append(value if atoms else value[None])
            mask.append(np.array([True]))

    def _open_label(self, name: str, rows: int, masked: int) -> None:
        values = GrowingArray(layout.label_path(self.folder, name), "<f8", tuple(self.labels[name]["shape"]), rows)
        self._labels[name] = values, GrowingArray(layout.mask_path(self.folder, name), "|b1", (), masked)

    def record(self, branch: int, position: tuple[int, int]) -> None:
        """Confirms everything so far: an interrupted run resumes behind it.

        Args:
            branch: number of the data set.
            position: of the branch's next structure: number of the file and number in it.
        """
        arrays = {name: array for name, array in self.arrays.items()}
        for name, (values, mask) in self._labels.items():
            arrays |= {f"{name}.label": values, f"{name}.mask": mask}
        for array in arrays.values():
            array.flush()
        self.positions[str(branch)] = list(position)
        self.staging.record(
            positions=self.positions,
            labels=self.labels,
            sources=self.sources,
            groups=list(self.groups),
            findings=self.findings.to_dict(),
            rows={name: array.rows for name, array in arrays.items()},
        )

    def position(self, branch: int) -> tuple[int, int]:
        """Returns where to go on in a branch: number of the file and number in it."""
        file, number = self.positions.get(str(branch), (0, 0))
        return file, number

    def finish(self) -> None:
        """Brings all labels to the same length, closes the files, and writes the groups."""
        for name, (values, mask) in self._labels.items():
            atoms = self.labels[name]["level"] == NODE
            values.extend_zeros(self.arrays["positions"].rows if atoms else self.num_structures)
            mask.extend_zeros(self.num_structures)
        self.close()
        write_json(self.folder / layout.GROUPS, list(self.groups))

    def close(self) -> None:
        """Closes the files; what was not recorded is cut off when they are opened again."""
        for array in (*self.arrays.values(), *(array for pair in self._labels.values() for array in pair)):
            array.close()


def frame_key(structure: Structure) -> int:
    """Returns a number that is the same for equal frames: elements, cell and positions to 1e-4 A, in their order."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(structure.atomic_numbers.astype("<i8").tobytes())
    for array in (structure.cell, structure.positions):
        digest.update((np.round(array, POSITION_DIGITS) + 0.0).astype("<f8").tobytes())  # + 0.0: no minus zero
    digest.update(structure.pbc.tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)
