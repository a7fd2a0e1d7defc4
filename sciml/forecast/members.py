"""Members of an ensemble that differ by noise: which noise each gets, and how the members are judged together.

The noise of a member is a function of its seed and of the step in its forecast: it is the same on every mesh, in
every batch, and however often it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sciml.core.seeding import seed_of

FEW = 6
"""Members up to which all pairs are compared one by one, which is cheaper than sorting."""


class MemberNoise(NamedTuple):
    """Names the noise of a member.

    Attributes:
        seed: of an ensemble, or of a member that is alone.
        number: of the member in the ensemble.
        members: of the ensemble, whose noise adds up to zero. What noise does in proportion then cancels in the mean,
            so that the mean of a few members is nearly that of many. One that is alone is independent of all others,
            as members must be while they learn by their distances.
    """

    seed: int
    number: int = 0
    members: int = 1


def independent_members(seed: int, count: int) -> list[MemberNoise]:
    """Returns so many independent members."""
    return [MemberNoise(seed_of(seed, "member", number)) for number in range(count)]


def drawn_noise(names: Sequence[MemberNoise], step: int, num_features: int) -> Float[Tensor, "batch noise"]:
    """Returns the noise of each member: normal numbers, less their mean over the ensemble.

    Args:
        names: of the members.
        step: number of the step in their forecasts; each has noise of its own.
        num_features: length of the noise.
    """
    drawn: dict[tuple[int, int], Tensor] = {}
    for seed, _, members in names:
        if (seed, members) not in drawn:
            alone = independent_members(seed, members) if members > 1 else [MemberNoise(seed)]
            noise = torch.stack([_normal(one.seed, step, num_features) for one in alone])
            drawn[seed, members] = noise - noise.mean(0) if members > 1 else noise
    return torch.stack([drawn[seed, members][number] for seed, number, members in names])


def _normal(seed: int, step: int, count: int) -> Float[Tensor, "noise"]:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed_of(seed, "noise", step)))


def balanced_crps(errors: Float[Tensor, "batch member *field"]) -> Float[Tensor, "batch *field"]:
    """Returns the fair score of members whose noise adds up to zero, given their errors.

    Such members are as far apart as independent ones, and nearer to their mean: by the root of 1 - 1 / n where noise
    acts in proportion. Scored as independent ones they would seem nearer to the truth than a member of many is, the
    more so the wider the ensemble, and two that are much too wide would be nearly perfect. So their distances from the
    truth are those of members that differ from the mean by as much as independent ones do.

    Args:
        errors: members minus truth; one member alone has the mean absolute error.
    """
    count = errors.shape[1]
    if count == 1:
        return fair_crps(errors)
    mean = errors.mean(1, keepdim=True)
    as_independent = mean + math.sqrt(count / (count - 1)) * (errors - mean)
    return fair_crps(errors) + as_independent.abs().mean(1) - errors.abs().mean(1)


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
