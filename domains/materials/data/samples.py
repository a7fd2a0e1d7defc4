"""Samples of a store: structures of a split, gathered into graphs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from domains.materials.data.batch import GraphBatch, GraphSample, LabelShape, collate
from domains.materials.data.key_names import keys_under
from domains.materials.data.prepare import (
    Preparation,
    PrepareConfig,
    Source,
    branches_of,
    prepare,
    source_stem,
    store_fingerprint,
)
from domains.materials.data.schema import MaterialsSchema
from domains.materials.data.store import MaterialsStore
from domains.materials.data.store_layout import is_store
from sciml.core.config import one_of
from sciml.core.errors import ConfigError
from sciml.core.types import FilePath, NonNegative

DTYPES = {"float32": torch.float32, "float64": torch.float64}
ALL_TEST = {"train": 0.0, "valid": 0.0, "test": 1.0}
ATOM_COST, EDGE_COST = 10.0, 1.0
"""Costs of an atom and an edge in a message-passing layer, relative to one another."""


@dataclass(frozen=True)
class MaterialsDataConfig(Preparation):
    """Holds the ``data`` keys of a materials run.

    Attributes:
        path: a store, or any source that :mod:`domains.materials.data.readers` reads, which is then prepared once.
        test_path: another source or store, all of which is tested on, in place of the store's own test split.
        cache: where stores prepared on the way are kept.
        dtype: of batches: float32 or float64.
        shares: how often each data set of several is drawn in training, e.g. ``{old: 0.5, mine: 0.5}``; by default as
            often as it has structures; 0 leaves it out. So a few structures of one's own are learned, and the others
            not forgotten.
        labeled_by: what computed the labels. Beside those of an ``eam`` no baseline of that form is fitted unless it is
            asked for, since it would be told the answer.
    """

    practical: ClassVar[tuple[str, ...]] = ("path", "test_path", "cache")

    key_prefix: ClassVar[str] = "data."

    path: Source = "data/materials/hea_eam.extxyz.xz"
    test_path: Source | None = None
    cache: FilePath = "data/cache"
    dtype: str = "float32"
    shares: dict[str, NonNegative[float]] = field(default_factory=dict)
    labeled_by: Literal["unknown", "eam"] = "unknown"

    def __post_init__(self) -> None:
        super().__post_init__()
        branches = branches_of(self.path)
        for name in self.shares:
            one_of(name, branches, "data.shares")
        if self.shares and set(self.shares) != set(branches):
            missing = ", ".join(set(branches) - set(self.shares))
            raise ConfigError(f"{missing} has no share", key="data.shares", hint="give every data set one")
        if self.shares and not any(self.shares.values()):
            raise ConfigError("nothing is left to train on", key="data.shares", hint="give one data set 1.0")
        for name, source in branches_of(self.path).items():
            if not source:
                key = f"data.path.{name}" if isinstance(self.path, dict) else "data.path"
                raise ConfigError("no data are named", key=key, hint=f"e.g. {key}=structures.extxyz")
        one_of(self.dtype, DTYPES, "data.dtype")


def open_or_prepare(config: MaterialsDataConfig) -> MaterialsStore:
    """Opens the store of a run's data; prepares it first where the path is not one already.

    Raises:
        ConfigError: choices that the data do not have, or that are asked of a finished store.
        DataError: missing or damaged data.
    """
    if isinstance(config.path, str) and is_store(config.path):
        _refuse_choices(config)
    return MaterialsStore.open(ensure_store(config.path, config.cache, config))


def open_test(config: MaterialsDataConfig, store: MaterialsStore, schema: MaterialsSchema) -> MaterialsStore | None:
    """Opens the store of ``test_path``, where there is one.

    Args:
        schema: of the model, whose elements it may have.

    Raises:
        DataError: it has elements that the model does not know.
        ConfigError: it is a store of another cutoff.
    """
    if config.test_path is None:
        return None
    chosen = {**config.selected(), "cutoff": store.schema.cutoff, "splits": ALL_TEST, "split_by": "structure"}
    test = MaterialsStore.open(ensure_store(config.test_path, config.cache, Preparation(**chosen)))
    schema.check_elements(test.schema.elements, str(config.test_path))
    if test.schema.cutoff != store.schema.cutoff:
        raise ConfigError(
            f"its neighbors reach {test.schema.cutoff:g} A, those of the training data {store.schema.cutoff:g} A",
            key="data.test_path",
            hint="name the source that the store was made of",
        )
    return test


def ensure_store(path: Source, cache: str | Path, preparation: Preparation) -> Path:
    """Returns a store's own path, or that of the store prepared from a source, now or by an earlier run.

    The name in the cache has the source's name and a hash of its files and of all choices, so that changed files or
    choices make a new store. Several processes may ask at once: one prepares, the others wait.
    """
    if isinstance(path, str) and is_store(path):
        return Path(path)
    out = Path(cache) / f"{source_stem(path)}-{store_fingerprint(path, preparation)}"
    if not out.exists():
        with keys_under(MaterialsDataConfig.key_prefix):
            prepare(PrepareConfig(path=path, out=str(out), **preparation.selected()), keep_existing=True)
    return out


def _refuse_choices(config: MaterialsDataConfig) -> None:
    """Refuses keys that were decided when a store was made: labels, cutoff and splits."""
    plain, made = Preparation().selected(), MaterialsStore.open(str(config.path)).header["preparation"]
    for name, value in config.selected().items():
        if value not in (plain[name], made[name]):
            raise ConfigError(
                f"{config.path} is a finished store and keeps its own {name}",
                key=f"data.{name}",
                hint="leave it out, or name the source that the store was made of",
            )


class StructureSource:
    """Gives structures of a store by number.

    Args:
        store: where they are.
        indices: which of them; those of a split, say.
        labels: what batches carry; by default the store's own labels. Where the store has less, masks say so.
        dtype: of batches: ``float32`` or ``float64``.
        branches: for each data set of the store, its number in the model; by default the store's own.
    """

    def __init__(
        self,
        store: MaterialsStore,
        indices: np.ndarray,
        labels: Mapping[str, LabelShape] | None = None,
        dtype: str = "float32",
        branches: Sequence[int] | None = None,
    ) -> None:
        self.branches = range(len(store.schema.branches)) if branches is None else branches
        self.store, self.indices, self.dtype = store, np.asarray(indices, dtype=np.int64), dtype
        self.labels = store.schema.labels if labels is None else labels

    @classmethod
    def of_split(cls, store: MaterialsStore, split: str, **options: Any) -> StructureSource:
        """Returns the structures of ``train``, ``valid`` or ``test``."""
        return cls(store, store.indices(split), **options)

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int, generator: np.random.Generator) -> GraphSample:
        """Returns a structure with its neighbors; nothing in it is random."""
        sample = self.store.sample(int(self.indices[index]))
        return replace(sample, branch=self.branches[sample.branch])

    def collate(self, samples: Sequence[GraphSample]) -> GraphBatch:
        return collate(samples, self.labels, DTYPES[self.dtype])

    def costs(self) -> np.ndarray:
        """Returns what a pass over each structure costs, from its counts alone, (len,)."""
        atoms, edges = self.store.arrays.num_atoms[self.indices], self.store.arrays.num_edges[self.indices]
        return ATOM_COST * atoms + EDGE_COST * edges


def in_shares(store: MaterialsStore, indices: np.ndarray, shares: Mapping[str, float]) -> np.ndarray:
    """Repeats the structures of some data sets, so that each is drawn as often as wanted.

    Args:
        shares: of draws, by name of the data set; none repeats nothing.

    Raises:
        ConfigError: a data set has no structure among them.
    """
    if not shares:
        return indices
    branch = store.arrays.branch[indices]
    drawn = [name for name, share in shares.items() if share > 0]
    mine = {name: indices[branch == store.schema.branches.index(name)] for name in drawn}
    for name, found in mine.items():
        if not len(found):
            raise ConfigError("it has no training structures", key=f"data.shares.{name}", hint="change data.splits")
    repeats = {name: shares[name] / len(found) for name, found in mine.items()}
    once = min(repeats.values())
    return np.concatenate([np.resize(mine[name], round(len(mine[name]) * repeats[name] / once)) for name in drawn])


def branch_numbers(known: Sequence[str], branches: Sequence[str], key: str = "data.path") -> list[int]:
    """Returns for each data set of a store its number in a model; all are one for a model of one.

    Raises:
        ConfigError: the model has several, and none of that name.
    """
    if len(known) == 1:
        return [0] * len(branches)
    for name in branches:
        if name not in known:
            raise ConfigError(
                f"the model knows no data set {name!r}",
                key=key,
                hint=f"say whose heads are to be read, e.g. {key}={{{known[0]}: FILE}}",
            )
    return [list(known).index(name) for name in branches]


def held_out_test(store: MaterialsStore, test: MaterialsStore, **options: Any) -> StructureSource:
    """Returns a test store without the frames that are in the training or validation split, with the training's
    labels.
    """
    seen = store.arrays.key[np.concatenate([store.indices("train"), store.indices("valid")])]
    fresh = np.flatnonzero(~np.isin(test.arrays.key, seen))
    if len(fresh) < len(test):
        print(
            f"{len(test) - len(fresh)} frames of {test.path} are left out: the model is trained on them",
            file=sys.stderr,
        )
    return StructureSource(test, fresh, store.schema.labels, **options)
