"""A prepared data set: structures with their neighbors and labels, read as they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domains.materials.data import store_layout as layout
from domains.materials.data.batch import GraphSample
from domains.materials.data.labels import NODE
from domains.materials.data.schema import MaterialsSchema, MaterialsStatistics
from domains.materials.data.structure import Structure
from sciml.core.command_line import command
from sciml.core.errors import ConfigError, DataError
from sciml.core.files import read_json, read_safetensors

SPLITS = ("train", "valid", "test")


class Arrays:
    """Opens the arrays of a store's folder by memory map: nothing is read until it is used.

    Args:
        folder: the store, or the folder in which it grows.
        labels: level, shape and unit of each label, by name.
    """

    def __init__(self, folder: Path, labels: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder, self.label_specs = folder, labels

    def __getstate__(self) -> dict[str, Any]:
        # a worker maps the files for itself; pickled, they would travel whole
        return {"folder": self.folder, "label_specs": self.label_specs}

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in layout.ARRAYS and name != "split":
            raise AttributeError(name)
        array = _mapped(layout.array_path(self.folder, name))
        self.__dict__[name] = array
        return array

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """Returns the values of the labels by name, (structure, ...) or (atom, ...)."""
        return {name: _mapped(layout.label_path(self.folder, name)) for name in self.label_specs}

    @cached_property
    def masks(self) -> dict[str, np.ndarray]:
        """Returns by label which structures have it."""
        return {name: _mapped(layout.mask_path(self.folder, name)) for name in self.label_specs}

    def __len__(self) -> int:
        return len(self.atom_offsets) - 1

    @property
    def num_atoms(self) -> np.ndarray:
        """Counts the atoms of each structure."""
        return np.diff(self.atom_offsets)

    @property
    def num_edges(self) -> np.ndarray:
        """Counts the edges of each structure."""
        return np.diff(self.edge_offsets)

    def labels_of(self, index: int) -> dict[str, np.ndarray]:
        """Returns the labels that a structure has."""
        atoms = slice(self.atom_offsets[index], self.atom_offsets[index + 1])
        return {
            name: self.labels[name][atoms if spec["level"] == NODE else index]
            for name, spec in self.label_specs.items()
            if self.masks[name][index]
        }


def _mapped(path: Path) -> np.ndarray:
    try:
        if not path.is_file():  # a pipe, which might never end
            raise OSError("it is no plain file")
        # a plain view of the map: slicing numpy's own subclass takes several times as long
        return np.asarray(np.load(path, mmap_mode="r"))
    except Exception as error:  # a damaged header is parsed as Python's literals, with all of its errors
        raise DataError(f"{path}: a part of the store is missing or damaged ({error}); prepare it again") from error


class MaterialsStore:
    """Reads a prepared data set.

    Attributes:
        path: its folder.
        header: what ``store.json`` says.
        schema: elements, cutoff, labels, branches and title.
        arrays: structures, edges and labels.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path, self.header = path, header
        try:
            self.schema = MaterialsSchema.from_dict(header["schema"])
        except ConfigError as error:
            raise DataError(f"{path / layout.STORE} is corrupted: {error}; prepare it again") from None
        self.arrays = Arrays(path, header["schema"]["labels"])

    @classmethod
    def open(cls, path: str | Path) -> MaterialsStore:
        """Opens a store.

        Raises:
            DataError: no store, one of another version, or one with parts missing.
        """
        path = Path(path)
        header = layout.read_header(path)
        if header is None:
            make = command("prepare", "path=SOURCE", domain="materials", out=path)
            raise DataError(f"{path}: no materials store; make one with: {make}")
        version = header.get("version")
        if version != layout.VERSION:
            raise DataError(
                f"{path}: a store of version {version}, this program reads {layout.VERSION}; prepare it again"
            )
        store = cls(path, header)
        store._check_whole()
        return store

    def _check_whole(self) -> None:
        counts = {"cell": len(self), "split": len(self)}
        counts |= {"positions": int(self.arrays.atom_offsets[-1]), "shifts": int(self.arrays.edge_offsets[-1])}
        for name, wanted in counts.items():
            rows = len(getattr(self.arrays, name))
            if rows != wanted:
                raise DataError(
                    f"{self.path}: {name} has {rows} of {wanted} rows, the store is damaged; prepare it again"
                )

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def statistics(self) -> MaterialsStatistics:
        """Returns the statistics of the training split.

        Raises:
            DataError: the store has no training split.
        """
        path = self.path / layout.STATISTICS
        if not path.exists():
            raise DataError(
                f"{self.path}: the store has no training structures, so no statistics; it can only be a test set"
            )
        return MaterialsStatistics.from_tensors(read_safetensors(path, advice="prepare it again"))

    @cached_property
    def groups(self) -> list[str]:
        """Returns the names of groups, by number."""
        names: list[str] = read_json(self.path / layout.GROUPS, list[str], advice="prepare it again")
        return names

    def indices(self, split: str) -> np.ndarray:
        """Returns the numbers of the structures of a split, increasing."""
        return np.flatnonzero(self.arrays.split == SPLITS.index(split))

    def name(self, index: int) -> str:
        """Returns where a structure came from."""
        start, stop = self.arrays.name_offsets[index : index + 2]
        return bytes(self.arrays.names[start:stop]).decode()

    def group(self, index: int) -> str:
        return self.groups[int(self.arrays.group[index])]

    def structure(self, index: int) -> Structure:
        """Returns a structure as it was read."""
        a = self.arrays
        atoms = slice(a.atom_offsets[index], a.atom_offsets[index + 1])
        return Structure(
            a.atomic_numbers[atoms].astype(np.int64),
            a.positions[atoms].copy(),
            a.cell[index].copy(),
            a.pbc[index].copy(),
            {name: value.copy() for name, value in a.labels_of(index).items()},
            self.name(index),
            self.group(index),
            int(a.branch[index]),
        )

    def sample(self, index: int) -> GraphSample:
        """Returns a structure with its neighbors; its arrays are views of the files."""
        a = self.arrays
        atoms = slice(a.atom_offsets[index], a.atom_offsets[index + 1])
        edges = slice(a.edge_offsets[index], a.edge_offsets[index + 1])
        return GraphSample(
            a.atomic_numbers[atoms],
            a.positions[atoms],
            a.cell[index],
            a.pbc[index],
            a.senders[edges],
            a.receivers[edges],
            a.shifts[edges],
            int(a.branch[index]),
            a.labels_of(index),
        )


def save_statistics(folder: Path, statistics: MaterialsStatistics) -> None:
    """Writes the statistics of a store that grows."""
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous().to(torch.float64) for name, tensor in statistics.to_tensors().items()}
    save_file(tensors, str(folder / layout.STATISTICS))
