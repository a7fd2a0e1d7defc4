"""Splits structures into training, validation and testing, so that no frame is in two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from domains.materials.data.composition import system_name
from domains.materials.data.near_duplicates import cut_runs
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
        runs: the same for frames that follow one another and hardly differ, not decreasing; None where nobody looked.
    """

    groups: Sequence[str]
    systems: Sequence[str]
    orders: np.ndarray
    keys: np.ndarray
    runs: np.ndarray | None = None

    @property
    def longest(self) -> int:
        """Returns how many frames the longest run has."""
        return 1 if self.runs is None or not len(self.runs) else int(np.unique(self.runs, return_counts=True)[1].max())

    def units(self, most: int) -> np.ndarray:
        """Returns a number for each structure that is the same for those that must not be told apart: equal frames,
        and runs of near duplicates.

        Args:
            most: frames of a run that stay together; longer ones are cut.
        """
        if self.runs is None:
            return self.keys
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        _, frame = np.unique(self.keys, return_inverse=True)
        pairs = frame, cut_runs(self.runs, most) + frame.max() + 1
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


class Assigned(NamedTuple):
    """Says where structures go.

    Attributes:
        splits: of each structure, numbered as in SPLITS, or -1 where it is not used.
        dropped: structures that are left out because the same frame is in another split.
        most: frames of a run of near duplicates that stayed together, where longer ones had to be cut; else None.
    """

    splits: np.ndarray
    dropped: int
    most: int | None

    def notes(self, described: Described) -> list[str]:
        """Returns what a user must know of the draw, in sentences."""
        notes = []
        if self.dropped:
            notes.append(
                f"{self.dropped} structures are left out of training or validation: the same frames are in a later "
                "split"
            )
        if self.most is not None:
            notes.append(
                f"runs of up to {described.longest} near duplicates are cut to {self.most}, so that every split gets "
                "its share: scores are too good where parts of a run are in several"
            )
        return notes


def assign(splits: Mapping[str, Any], split_by: str, seed: int, described: Described) -> Assigned:
    """Returns the split of each structure, numbered as in SPLITS, or -1 where it is not used.

    Lists are served first, the test split's before the others'; shares are of what is then left, drawn at random:
    structures, or whole groups or chemical systems. Frames that are the same go together, and those of a run that
    hardly differ, which is cut only as far as every split needs to get about its share; where lists put frames that are
    the same into two splits, training gives way to validation and both to testing.

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
    most = _draw(splits, split_by, seed, described, result)
    dropped = _part(result, described.keys)
    for number, name in enumerate(SPLITS):
        wanted = not _is_share(splits[name]) or splits[name] > 0
        if wanted and not (result == number).any():
            raise ConfigError(
                f"no structure is left for it among {len(result)}", key=f"splits.{name}", hint="give it a larger share"
            )
    return Assigned(result, dropped, most if most < described.longest else None)


def _draw(splits: Mapping[str, Any], split_by: str, seed: int, described: Described, result: np.ndarray) -> int:
    """Draws what is left, with runs of near duplicates as long as they can be; returns how long that is."""
    rest = np.flatnonzero(result == UNUSED)
    most = described.longest
    if not len(rest):
        return most
    shares = np.array([splits[name] if _is_share(splits[name]) else 0.0 for name in SPLITS])
    if split_by != "structure":
        names = {"group": described.groups, "system": described.systems}[split_by]
        result[rest] = _drawn(np.asarray(names)[rest], shares, seed)
        return most
    while True:
        drawn = _drawn(described.units(most)[rest], shares, seed)
        if most == 1 or _about(drawn, shares):
            result[rest] = drawn
            return most
        most = -(-most // 2)


def _drawn(names: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Returns a split for each structure, the same for those of one name."""
    _, unit = np.unique(names, return_inverse=True)
    # units in random order, filled up to each split's edge in turn; sizes count, so that shares are of structures
    sizes = np.bincount(unit)
    order = np.random.default_rng(seed_of(seed, "splits")).permutation(len(sizes))
    middle = (np.cumsum(sizes[order]) - sizes[order] / 2) / len(names)
    chosen = np.searchsorted(np.cumsum(shares), middle, side="right")
    split_of = np.empty(len(sizes), dtype=np.int64)
    split_of[order] = np.where((chosen < len(SPLITS)), chosen, UNUSED)
    return split_of[unit]


def _about(drawn: np.ndarray, shares: np.ndarray) -> bool:
    """Says whether each split has between half and twice its share, and one structure more at most."""
    counts = np.array([(drawn == number).sum() for number in range(len(SPLITS))])
    wanted = shares * len(drawn)
    return bool(((counts >= wanted / 2) & (counts <= 2 * wanted + 1)).all())


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
