"""Several rollouts side by side: the members of an ensemble, met at the lead times that they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.seeding import seed_of
from sciml.domain.forecasting import PerturbedStarts
from sciml.domain.protocol import Prediction, Task
from sciml.forecast.intervals import LeadTree
from sciml.forecast.rollout import SteppingBatch, tree_rollout

TOLERANCE_H = 1e-6


PERTURBATION = 0.05
"""Usual size of perturbed starts, in standard deviations of each channel."""


def ensemble_rollout(
    task: Task, model: nn.Module, batch: SteppingBatch, trees: Sequence[LeadTree]
) -> Iterator[tuple[float, Prediction]]:
    """Yields (lead time in hours, predictions of all members) in constant memory.

    Args:
        batch: samples are members.
        trees: of model steps; of several each makes members of its own, which are met at the lead times that all of
            them reach.
    """
    members = [tree_rollout(task, model, batch, tree) for tree in trees]
    try:
        current = [next(member) for member in members]
        while True:
            latest = max(lead for lead, _ in current)
            behind = [lead < latest - TOLERANCE_H for lead, _ in current]
            if not any(behind):
                yield latest, _together([prediction for _, prediction in current])
                behind = [True] * len(members)
            current = [next(m) if late else now for m, now, late in zip(members, current, behind, strict=True)]
    except StopIteration:  # the first member at its end: nothing further is common to all
        return


def perturbed(
    state: Float[Tensor, "batch channel row column"],
    std: Float[Tensor, "channel"],
    *,
    members: int,
    size: float,
    seeds: Sequence[int],
) -> Float[Tensor, "batch member channel row column"]:
    """Returns each state itself and copies with white noise of ``size`` standard deviations of each channel.

    The noise of a copy is a function of its state's seed and its own number: it is the same in every batch and on every
    mesh, and a larger ensemble begins with the members of a smaller one.

    Args:
        std: of each channel.
        members: of each state's ensemble, the state itself included.
        seeds: of each state.
    """
    scale = size * std[:, None, None].to(state)
    ensembles = []
    for own, seed in zip(state, seeds, strict=True):
        copies = [own]
        for number in range(1, members):
            generator = torch.Generator().manual_seed(seed_of(seed, "perturbation", number))
            copies.append(own + scale * torch.randn(own.shape, generator=generator).to(own))
        ensembles.append(torch.stack(copies))
    return torch.stack(ensembles)


def perturbed_members(
    state: Float[Tensor, "channel row column"], std: Float[Tensor, "channel"], starts: PerturbedStarts
) -> Float[Tensor, "member channel row column"]:
    """Returns the initial conditions of the ensemble that a user asks for; the first member is the state itself."""
    return perturbed(state[None], std, members=starts.members, size=starts.size, seeds=[starts.seed])[0]


def _together(predictions: Sequence[Prediction]) -> Prediction:
    names = predictions[0].values
    return Prediction({name: torch.cat([p.values[name] for p in predictions]) for name in names})
