"""Members of an ensemble that differ by noise: which noise each gets, and how the members are judged together.

The noise of a member is a function of its seed and of the step in its forecast: it is the same on every mesh, in
every batch, and however often it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from sciml.core.seeding import seed_of

FEW = 6
"""Members up to which all pairs are compared one by one, which is cheaper than sorting."""


def member_seed(seed: int, number: int) -> int:
    """Returns the seed of one member of an ensemble, however large that is."""
    return seed_of(seed, "member", number)


def member_noise(seeds: Sequence[int], step: int, num_features: int) -> Float[Tensor, "batch noise"]:
    """Returns independent normal numbers for each member.

    Args:
        seeds: of the members.
        step: number of the step in their forecasts; each has noise of its own.
        num_features: length of the noise.
    """
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed_of(seed, "noise", step))
        rows.append(torch.randn(num_features, generator=generator))
    return torch.stack(rows)


def fair_crps(errors: Float[Tensor, "batch member *field"], fairness: float = 1.0) -> Float[Tensor, "batch *field"]:
    """Returns the continuous ranked probability score of ensembles, given their members' errors.

    It is the mean distance of the members from the truth, less half the mean distance of all pairs of different
    members. One that is fair judges an ensemble as if it had infinitely many members; two members of a fair ensemble
    may then drift apart without end as long as they lie on one side of the truth with the others, which fairness a
    little below 1 forbids. The members' distances, and so the score, are those of the errors.

    Sources: Ferro (2014), https://doi.org/10.1002/qj.2270, for the fair score; Lang et al. (2024),
    https://doi.org/10.48550/arXiv.2412.15832, for the almost fair one.

    Args:
        errors: members minus truth; one member alone has the mean absolute error.
        fairness: 1 for the fair score, 0 for that of an ensemble of just these members.
    """
    count = errors.shape[1]
    distance = errors.abs().mean(1)
    if count == 1:
        return distance
    share = (1 - (1 - fairness) / count) / (count * (count - 1))
    if count <= FEW:
        pairs = [(errors[:, a] - errors[:, b]).abs() for a, b in combinations(range(count), 2)]
        return distance - share * torch.stack(pairs).sum(0)
    # Each member is subtracted from those above it in order: no (member x member) array is needed.
    ranks = torch.arange(1, count + 1, dtype=errors.dtype, device=errors.device)
    weights = (2 * ranks - count - 1).view(-1, *(1,) * (errors.ndim - 2))
    return distance - share * (errors.sort(dim=1).values * weights).sum(1)
