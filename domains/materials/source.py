"""Samples of a store: structures of a split, gathered into graphs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from domains.materials.batch import GraphBatch, GraphSample, LabelShape, collate
from domains.materials.layout import is_store
from domains.materials.prepare import Preparation, PrepareConfig, Source, identity, prepare, source_stem
from domains.materials.store import MaterialsStore
from sciml.core.config import choice
from sciml.core.errors import ConfigError

DTYPES = {"float32": torch.float32, "float64": torch.float64}
ALL_TEST = {"train": 0.0, "valid": 0.0, "test": 1.0}
ATOM_COST, EDGE_COST = 10.0, 1.0
"""What an atom and an edge cost a message-passing layer, relative to one another."""


@dataclass(frozen=True)
class MaterialsDataConfig(Preparation):
    """The data of a materials run.

    Attributes:
        path: a store, or any source that :mod:`domains.materials.readers` reads, which is then prepared once.
        test_path: another source or store, all of which is tested on, in place of the store's own test split.
        cache: where stores prepared on the way are kept.
        dtype: of batches: float32 or float64.
    """

    key_prefix: ClassVar[str] = "data."

    path: Source = "data/materials/hea_eam.extxyz.xz"
    test_path: str | None = None
    cache: str = "data/cache"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("no data are named", key="data.path", hint="e.g. data.path=structures.extxyz")
        choice(self.dtype, tuple(DTYPES), "data.dtype")


def open_or_prepare(config: MaterialsDataConfig) -> MaterialsStore:
    """The store of a run's data; prepared first where the path is not one already.

    Raises:
        ConfigError: choices that the data do not have, or that are asked of a finished store.
        DataError: missing or damaged data.
    """
    if isinstance(config.path, str) and is_store(config.path):
        _refuse_choices(config)
    return MaterialsStore.open(ensure_store(config.path, config.cache, config))


def open_test(config: MaterialsDataConfig, store: MaterialsStore) -> MaterialsStore | None:
    """The store of ``test_path``, where there is one.

    Raises:
        DataError: it has elements that the training data do not have.
        ConfigError: it is a store of another cutoff.
    """
    if config.test_path is None:
        return None
    chosen = {**config.selected(), "cutoff": store.schema.cutoff, "splits": ALL_TEST, "split_by": "structure"}
    test = MaterialsStore.open(ensure_store(config.test_path, config.cache, Preparation(**chosen)))
    store.schema.check_elements(test.schema.elements, str(config.test_path))
    if test.schema.cutoff != store.schema.cutoff:
        raise ConfigError(
            f"its neighbors reach {test.schema.cutoff:g} A, those of the training data {store.schema.cutoff:g} A",
            key="data.test_path",
            hint="name the source that the store was made of",
        )
    return test


def ensure_store(path: Source, cache: str | Path, preparation: Preparation) -> Path:
    """A store's own path, or that of the store prepared of a source, now or by an earlier run.

    The name in the cache has the source's name and a hash of its files and of all choices, so that changed files or
    choices make a new store. Several processes may ask at once: one prepares, the others wait.
    """
    if isinstance(path, str) and is_store(path):
        return Path(path)
    out = Path(cache) / f"{source_stem(path)}-{identity(path, preparation)}"
    if not out.exists():
        prepare(PrepareConfig(path=path, out=str(out), **preparation.selected()), keep_existing=True)
    return out


def _refuse_choices(config: MaterialsDataConfig) -> None:
    """A store's labels, cutoff and splits were decided when it was made."""
    plain, made = Preparation().selected(), MaterialsStore.open(str(config.path)).header["preparation"]
    for name, value in config.selected().items():
        if value not in (plain[name], made[name]):
            raise ConfigError(
                f"{config.path} is a finished store and keeps its own {name}",
                key=f"data.{name}",
                hint="leave it out, or name the source that the store was made of",
            )


class StructureSource:
    """Structures of a store by number.

    Args:
        store: where they are.
        indices: which of them; those of a split, say.
        labels: what batches carry; by default the store's own labels. Where the store has less, masks say so.
        dtype: of batches: ``float32`` or ``float64``.
    """

    def __init__(
        self,
        store: MaterialsStore,
        indices: np.ndarray,
        labels: Mapping[str, LabelShape] | None = None,
        dtype: str = "float32",
    ) -> None:
        self.store, self.indices, self.dtype = store, np.asarray(indices, dtype=np.int64), dtype
        self.labels = store.schema.labels if labels is None else labels

    @classmethod
    def of_split(cls, store: MaterialsStore, split: str, **options: Any) -> StructureSource:
        """The structures of ``train``, ``valid`` or ``test``."""
        return cls(store, store.indices(split), **options)

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int, generator: np.random.Generator) -> GraphSample:
        """A structure with its neighbors; nothing in it is random."""
        return self.store.sample(int(self.indices[index]))

    def collate(self, samples: Sequence[GraphSample]) -> GraphBatch:
        return collate(samples, self.labels, DTYPES[self.dtype])

    def costs(self) -> np.ndarray:
        """What a pass over each structure costs, from its counts alone, (len,)."""
        atoms, edges = self.store.arrays.num_atoms[self.indices], self.store.arrays.num_edges[self.indices]
        return ATOM_COST * atoms + EDGE_COST * edges


def held_out_test(store: MaterialsStore, test: MaterialsStore, **options: Any) -> StructureSource:
    """All of a test store but the frames that are in the training or validation split, with the training's labels."""
    seen = store.arrays.key[np.concatenate([store.indices("train"), store.indices("valid")])]
    fresh = np.flatnonzero(~np.isin(test.arrays.key, seen))
    if len(fresh) < len(test):
        print(
            f"{len(test) - len(fresh)} frames of {test.path} are left out: the model is trained on them",
            file=sys.stderr,
        )
    return StructureSource(test, fresh, store.schema.labels, **options)
