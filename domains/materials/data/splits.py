"""Splits structures into training, validation and testing, so that no frame is in two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from domains.materials.data.composition import system_name
from domains.materials.data.store import SPLITS
from sciml.core.config import one_of
from sciml.core.errors import ConfigError, nearest
from sciml.core.seeding import seed_of

UNUSED = -1
UNITS = ("structure", "group", "system")
KINDS = ("group", "system", "order")


@dataclass(frozen=True)
class Described:
    """Holds what a split may be made by; one entry a structure.

    Attributes:
        groups: names.
        systems: e.g. ``Mo-Nb``.
        orders: number of elements.
        keys: the same for frames that are the same.
        runs: the same for frames that follow one another and hardly differ; None where nobody looked.
    """

    groups: Sequence[str]
    systems: Sequence[str]
    orders: np.ndarray
    keys: np.ndarray
    runs: np.ndarray | None = None

    @property
    def units(self) -> np.ndarray:
        """Returns a number for each structure that is the same for those that must not be told apart: equal frames,
        and runs of near duplicates.
        """
        if self.runs is None:
            return self.keys
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        _, frame = np.unique(self.keys, return_inverse=True)
        pairs = frame, self.runs + frame.max() + 1
        size = int(pairs[1].max()) + 1
        _, component = connected_components(coo_array((np.ones(len(frame)), pairs), shape=(size, size)), directed=False)
        numbers: np.ndarray = component[frame]
        return numbers

    def matching(self, entry: str, key: str) -> np.ndarray:
        """Returns the structures that an entry such as ``group:*_Test``, ``system:Nb-Ta`` or ``order:4`` means.

        Raises:
            ConfigError: none.
        """
        kind, colon, value = str(entry).partition(":")
        if not colon:
            kind, value = "group", kind
        one_of(kind, KINDS, key)
        if kind == "order":
            matches, known = self.orders.astype(str) == value, {str(order) for order in self.orders}
        elif kind == "system":
            known = set(self.systems)
            matches = np.array([name == system_name(value.split("-")) for name in self.systems])
        else:
            known = set(self.groups)
            matched = {name for name in known if fnmatchcase(name, value)}
            matches = np.array([name in matched for name in self.groups])
        if not matches.any():
            raise ConfigError(f"no structure has the {kind} {value!r}", key=key, hint=nearest(value, known))
        return matches


def check_splits(splits: Mapping[str, Any], split_by: str, key: str = "splits", by_key: str = "split_by") -> None:
    """Checks the form of splits.

    Raises:
        ConfigError: an unknown or missing name; a share that is negative; shares above 1; an empty list.
    """
    one_of(split_by, UNITS, by_key)
    for name in splits:
        if name not in SPLITS:
            raise ConfigError(f"unknown split {name!r}", key=key, hint=nearest(name, SPLITS))
    for name in SPLITS:
        if name not in splits:
            raise ConfigError(f"the split {name!r} is missing", key=key, hint=f"e.g. {key}.{name}=0.1")
        value = splits[name]
        if not _is_share(value) and (isinstance(value, str) or not value):
            raise ConfigError(
                f"{value!r} is neither a share nor a list",
                key=f"{key}.{name}",
                hint="write e.g. 0.1, [group:*_Test], [system:Nb-Ta] or [order:4]",
            )
    shares = [value for value in splits.values() if _is_share(value)]
    if any(share < 0 for share in shares) or sum(shares) > 1 + 1e-9:
        raise ConfigError(
            "shares must not be negative and sum to at most 1", key=key, hint="e.g. {train: 0.8, valid: 0.1, test: 0.1}"
        )


def assign(splits: Mapping[str, Any], split_by: str, seed: int, described: Described) -> tuple[np.ndarray, int]:
    """Returns the split of each structure, numbered as in SPLITS, or -1 where it is not used.

    Lists are served first, the test split's before the others'; shares are of what is then left, drawn at random:
    structures, or whole groups or chemical systems. Frames that are the same go together, and those of a run that
    hardly differ; where lists put them
    into two splits, training gives way to validation and both to testing.

    Returns:
        the splits, and how many structures are left out because the same frame is in another split.

    Raises:
        ConfigError: a list that matches nothing, or a split that comes out empty.
    """
    result = np.full(len(described.keys), UNUSED, dtype=np.int8)
    for number in reversed(range(len(SPLITS))):
        entries = splits[SPLITS[number]]
        if _is_share(entries):
            continue
        for entry in entries:
            result[described.matching(entry, f"splits.{SPLITS[number]}") & (result == UNUSED)] = number
    _draw(splits, split_by, seed, described, result)
    dropped = _part(result, described.keys)
    for number, name in enumerate(SPLITS):
        wanted = not _is_share(splits[name]) or splits[name] > 0
        if wanted and not (result == number).any():
            raise ConfigError(
                f"no structure is left for it among {len(result)}", key=f"splits.{name}", hint="give it a larger share"
            )
    return result, dropped


def _draw(splits: Mapping[str, Any], split_by: str, seed: int, described: Described, result: np.ndarray) -> None:
    rest = np.flatnonzero(result == UNUSED)
    named = {"structure": described.units, "group": described.groups, "system": described.systems}[split_by]
    _, unit = np.unique(np.asarray(named)[rest], return_inverse=True)
    if not len(rest):
        return
    # units in random order, filled up to each split's edge in turn; sizes count, so that shares are of structures
    sizes = np.bincount(unit)
    order = np.random.default_rng(seed_of(seed, "splits")).permutation(len(sizes))
    middle = (np.cumsum(sizes[order]) - sizes[order] / 2) / len(rest)
    shares = [splits[name] if _is_share(splits[name]) else 0.0 for name in SPLITS]
    edges = np.cumsum(shares)
    chosen = np.searchsorted(edges, middle, side="right")
    split_of = np.empty(len(sizes), dtype=np.int64)
    split_of[order] = np.where((chosen < len(SPLITS)), chosen, UNUSED)
    result[rest] = split_of[unit]


def _part(result: np.ndarray, keys: np.ndarray) -> int:
    """Takes frames out of training (and validation) that are in validation or testing as well; says how many."""
    dropped = 0
    for number in range(len(SPLITS) - 1):
        later = np.unique(keys[result > number])
        doubled = (result == number) & np.isin(keys, later)
        result[doubled] = UNUSED
        dropped += int(doubled.sum())
    return dropped


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
