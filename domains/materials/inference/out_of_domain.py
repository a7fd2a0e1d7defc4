"""Says whether a structure lies outside what a model was trained on: by its elements, its distances, or the model's
doubt.

Nothing here asks the model anew: everything follows from a structure's neighbors, from what was predicted, and from the
statistics of the training split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from domains.materials.data.batch import GraphSample
from domains.materials.data.schema import MaterialsSchema, MaterialsStatistics

Array = np.ndarray
KINDS = ("element", "pair", "free atom", "distance", "spread")
"""Reasons, the gravest first: what was never seen, then what was seen otherwise, then what the model itself doubts."""
CLOSER = 0.95
"""A distance below this share of the shortest one of its pair in training is outside: the repulsive wall is steep, and
below its lowest point no label has held the model."""
DOUBT = 0.5
"""A spread above this share of what labels scatter by in training is outside: the model then explains three quarters of
their variance at best."""


class Reason(NamedTuple):
    """Says why a structure lies outside the training set.

    Attributes:
        kind: one of :data:`KINDS`.
        text: in words, with numbers.
        excess: how many times a limit is passed; infinite for what was never seen.
    """

    kind: str
    text: str
    excess: float


def outside(
    sample: GraphSample,
    schema: MaterialsSchema,
    statistics: MaterialsStatistics,
    predicted: Mapping[str, np.ndarray] | None = None,
    *,
    distances: Float[Array, "edge"] | None = None,
) -> list[Reason]:
    """Returns why a structure lies outside the training set, the gravest reason first; empty where it lies inside.

    Args:
        sample: of elements that the schema knows; it is compared with the data set whose head is read, its branch.
        predicted: what the model says of it, with spreads if it has any; None looks at the structure alone.
        distances: of its edges, A, where they are known already.
    """
    lengths = edge_lengths(sample) if distances is None else distances
    reasons = _by_elements(sample, schema, statistics) + _by_distances(sample, lengths, schema, statistics)
    reasons += _by_loneliness(sample, schema, statistics)
    reasons += _by_spread(len(sample.atomic_numbers), predicted or {}, statistics)
    return sorted(reasons, key=severity)


def severity(reason: Reason) -> tuple[int, float]:
    """Sorts reasons, the gravest first."""
    return KINDS.index(reason.kind), -reason.excess


def in_words(reasons: Sequence[Reason]) -> str:
    """Returns the reasons in one line."""
    return "; ".join(reason.text for reason in reasons)


def edge_lengths(sample: GraphSample) -> Float[Array, "edge"]:
    """Returns the distance between the ends of each edge, A."""
    vectors = sample.positions[sample.senders] - sample.positions[sample.receivers] + sample.shifts @ sample.cell
    lengths: Float[Array, "edge"] = np.sqrt(np.einsum("ea,ea->e", vectors, vectors))
    return lengths


def _by_elements(sample: GraphSample, schema: MaterialsSchema, statistics: MaterialsStatistics) -> list[Reason]:
    """Finds elements that the model has a place for, but that only other splits or data sets had atoms of."""
    symbols = dict(zip(schema.elements, schema.symbols, strict=True))
    here = statistics.lacking(schema.elements, sample.atomic_numbers.tolist(), sample.branch)
    return [Reason("element", f"no {symbols[z]} in {_training(sample, schema)}", np.inf) for z in here]


def _training(sample: GraphSample, schema: MaterialsSchema) -> str:
    """Names what a structure is compared with: of several data sets the one whose head is read."""
    return "training" if len(schema.branches) == 1 else f"the data set {schema.branches[sample.branch]!r}"


def _by_distances(
    sample: GraphSample, lengths: Float[Array, "edge"], schema: MaterialsSchema, statistics: MaterialsStatistics
) -> list[Reason]:
    """Finds pairs of elements that were never neighbors, and distances that are shorter than any of their pair."""
    if not len(lengths):
        return []
    count = len(schema.elements)
    index = schema.element_index(torch.from_numpy(sample.atomic_numbers)).numpy()
    first, second = index[sample.senders], index[sample.receivers]
    shortest = np.full((count, count), np.inf)
    np.minimum.at(shortest, (np.minimum(first, second), np.maximum(first, second)), lengths)
    known = statistics.shortest[sample.branch].cpu().numpy()
    known = np.minimum(known, known.T)
    unseen = set(np.flatnonzero(statistics.element_counts[sample.branch].cpu().numpy() == 0))
    training = _training(sample, schema)
    reasons = []
    for a, b in np.argwhere(np.isfinite(shortest)):
        pair, distance = f"{schema.symbols[a]}-{schema.symbols[b]}", shortest[a, b]
        if not np.isfinite(known[a, b]):
            if not unseen & {a, b}:  # else the element says it
                reasons.append(Reason("pair", f"{pair} were never neighbors in {training}", np.inf))
        elif distance < CLOSER * known[a, b]:
            text = f"{pair} at {distance:.2f} A, at least {known[a, b]:.2f} A in {training}"
            reasons.append(Reason("distance", text, float(known[a, b] / distance)))
    return reasons


def _by_loneliness(sample: GraphSample, schema: MaterialsSchema, statistics: MaterialsStatistics) -> list[Reason]:
    """Finds elements of atoms without neighbors whose reference energies are a fit to matter, not those of free atoms.

    What an atom gains by bonds cannot be told from such a reference: a cohesive energy would be wrong by it.
    """
    alone = np.bincount(sample.receivers, minlength=len(sample.atomic_numbers)) == 0
    if not alone.any():
        return []
    numbers = np.unique(sample.atomic_numbers[alone])
    places = schema.element_index(torch.from_numpy(numbers))
    fitted = statistics.references[sample.branch].cpu()[places] != 0
    if statistics.bonding is not None:
        fitted &= statistics.bonding[sample.branch].cpu()[places] == 0
    symbols = [schema.symbols[place] for place in places[fitted].tolist()]
    return [
        Reason(
            "free atom",
            f"{one} without a neighbor within {schema.cutoff:g} A, and the energy of a free {one} is not known "
            "(data.references in training)",
            np.inf,
        )
        for one in symbols
    ]


def _by_spread(num_atoms: int, predicted: Mapping[str, np.ndarray], statistics: MaterialsStatistics) -> list[Reason]:
    """Spreads that are not small beside what the labels scatter by.

    Of the energy an atom (about its elements' references) and of the forces, by the atom whose are the least known.
    """
    spreads = []
    if "energy_std" in predicted:
        spreads.append(("energy", "eV/atom", float(predicted["energy_std"]) / num_atoms, float(statistics.energy_std)))
    if "forces_std" in predicted:
        of_atoms = np.sqrt(np.square(predicted["forces_std"]).mean(-1))
        spreads.append(("forces", "eV/A", float(of_atoms.max()), float(statistics.force_rms)))
    return [
        Reason(
            "spread",
            f"{name} known to {spread:.2g} {unit}, labels scatter by {scatter:.2g} in training",
            spread / (DOUBT * scatter),
        )
        for name, unit, spread, scatter in spreads
        if spread > DOUBT * scatter
    ]
