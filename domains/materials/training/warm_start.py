"""Keeps the units and the known elements of a model that starts from another's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from domains.materials.data.schema import MaterialsSchema, MaterialsStatistics
from domains.materials.training.pair_baseline import PairBaseline
from sciml.domain.protocol import FittedData


def warm_start(new: FittedData, older: FittedData) -> FittedData:
    """Returns schema and statistics of a training on new data that starts from the weights of an older one.

    Weights mean something in the older training's units alone: the rms of its forces, the mean and standard deviation
    of its properties, its number of neighbors. Reference energies are the new data's own, so that data of another
    reference fit. Elements that are not in the new data keep theirs, and all else that is known of them.
    """
    schema: MaterialsSchema = new.schema
    before: MaterialsSchema = older.schema
    elements = tuple(sorted({*schema.elements, *before.elements}))
    ours, theirs = (torch.tensor([elements.index(z) for z in table]) for table in (schema.elements, before.elements))
    statistics: MaterialsStatistics = new.statistics
    kept: MaterialsStatistics = older.statistics

    references = torch.zeros(len(schema.branches), len(elements), dtype=statistics.references.dtype)
    rows = [before.branches.index(branch) if branch in before.branches else 0 for branch in schema.branches]
    for row, source_row in enumerate(rows):
        references[row, theirs] = kept.references[source_row].to(references)
        mine = statistics.references[row]
        known = mine != 0  # an element that this data set does not have has no reference of its own
        references[row, ours[known]] = mine[known]

    bonding = torch.zeros_like(references)
    if statistics.bonding is not None:
        bonding[:, ours] = statistics.bonding.to(bonding)

    def merged(old: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**fresh, **{name: value for name, value in old.items() if name in fresh}}

    counts = torch.zeros_like(references)
    counts[:, ours] = statistics.element_counts.to(counts)
    shortest = torch.full((len(schema.branches), len(elements), len(elements)), torch.inf, dtype=references.dtype)
    shortest[:, ours[:, None], ours] = statistics.shortest.to(shortest)
    nowhere = counts.sum(0) == 0
    for row, (branch, source_row) in enumerate(zip(schema.branches, rows, strict=True)):
        # beside other data sets, a new one knows of the older model's elements only those that no data set has
        inherits = len(rows) == 1 or branch in before.branches
        kept_counts, kept_shortest = torch.zeros_like(counts[row]), torch.full_like(shortest[row], torch.inf)
        kept_counts[theirs] = kept.element_counts[source_row].to(counts)
        kept_shortest[theirs[:, None], theirs] = kept.shortest[source_row].to(shortest)
        counts[row] += torch.where(nowhere | inherits, kept_counts, 0.0)
        pairs = (nowhere[:, None] & nowhere) | inherits
        shortest[row] = torch.minimum(shortest[row], torch.where(pairs, kept_shortest, torch.inf))
    return FittedData(
        replace(schema, elements=elements, avg_num_neighbors=before.avg_num_neighbors),
        replace(
            statistics,
            references=references,
            bonding=bonding,
            pair=_pair(kept, before.elements, elements, rows),
            avg_num_neighbors=kept.avg_num_neighbors,
            element_counts=counts,
            shortest=shortest,
            mean=merged(kept.mean, statistics.mean),
            std=merged(kept.std, statistics.std),
            rms=merged(kept.rms, statistics.rms),
        ),
    )


def _pair(
    kept: MaterialsStatistics, before: Sequence[int], after: Sequence[int], branches: Sequence[int]
) -> Mapping[str, Tensor]:
    """Returns the potential of pairs that weights were trained above, for more elements."""
    return PairBaseline.from_tensors(kept.pair).for_elements(before, after, branches).to_tensors() if kept.pair else {}
