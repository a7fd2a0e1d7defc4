"""Chooses the patches to refine: those of the highest scores, with a buffer, hysteresis and balance; ties by number."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from domains.fluids.amr.config import ForestConfig
from domains.fluids.amr.forest import Forest, Level, PatchGeometry, roots, slots
from domains.fluids.amr.indicator_inputs import IndicatorInputs
from domains.fluids.amr.indicators import INDICATORS, Indicator, LearnedIndicator

Score = Callable[[int], Float[Tensor, "batch node"]]
"""From a level to the scores of all patches that it may have; those outside the grid score below 0."""


def grow_forest(
    config: ForestConfig,
    evidence: IndicatorInputs,
    learned: LearnedIndicator | None,
    before: Forest | None = None,
    *,
    trim: bool = False,
) -> Forest:
    """Decides where to refine a batch of states by the indicator that the configuration names.

    Args:
        learned: the indicator that has parameters, where it is named.
        before, trim: as in :func:`grow`.
    """
    geometry = PatchGeometry(tuple(evidence.fields.shape[2:]), config.patch_sizes)
    indicator: Indicator | None = learned or INDICATORS[config.indicator]
    assert indicator is not None

    def score(level: int) -> Float[Tensor, "batch node"]:
        with torch.no_grad() if learned is None else nullcontext():
            return indicator(evidence, geometry, level)

    return grow(config, geometry, score, evidence.periodic, before, trim=trim)


def grow(
    config: ForestConfig,
    geometry: PatchGeometry,
    score: Score,
    periodic: Bool[Tensor, "batch axis"],
    before: Forest | None = None,
    *,
    trim: bool = False,
) -> Forest:
    """Grows the forest for some scores; every sample's is its own, whatever else is in the batch.

    Args:
        score: differentiable where the indicator is learned; what is refined then has its score for a gate.
        periodic: of every sample, along which axes its ends meet.
        before: the forest of the state before, for hysteresis.
        trim: whether to leave out places that no sample of the batch uses. Training keeps the full shape, which
            pipelines and compilers rely on.
    """
    nodes, present = roots(geometry, len(periodic), periodic.device), None
    levels, num_nodes = [], geometry.num_nodes(0)
    for index, budget in enumerate(config.budgets):
        count, scores = slots(budget, num_nodes), score(index)
        chosen, refines = _choose(config, geometry, index, nodes, present, scores.detach(), periodic, before, count)
        if refines is not None and trim:
            used = int(refines.sum(dim=1).max())
            chosen, refines = chosen[:, :used], refines[:, :used]
        num_nodes = count * geometry.num_children(index)
        parents = nodes.gather(1, chosen)
        gates = scores.gather(1, parents) if config.indicator == "learned" else None
        levels.append(Level(nodes, present, chosen, refines, gates))
        nodes = geometry.children(parents, index)
        present = None if refines is None else refines.repeat_interleave(geometry.num_children(index), dim=1)
    return Forest(geometry, (*levels, Level(nodes, present, nodes[:, :0])))


def _choose(
    config: ForestConfig,
    geometry: PatchGeometry,
    index: int,
    nodes: Int[Tensor, "batch token"],
    present: Bool[Tensor, "batch token"] | None,
    scores: Float[Tensor, "batch node"],
    periodic: Bool[Tensor, "batch axis"],
    before: Forest | None,
    count: int,
) -> tuple[Int[Tensor, "batch slot"], Bool[Tensor, "batch slot"] | None]:
    """Returns the positions, among a level's tokens, of those to refine, in order, and which of them truly are;
    these come first.
    """
    shape = geometry.shape(index)
    exists = torch.zeros_like(scores, dtype=torch.bool)
    exists = exists.scatter(1, nodes, torch.ones_like(nodes, dtype=torch.bool) if present is None else present)
    own = scores.masked_fill(~exists, -1.0)
    largest = own.amax(dim=1, keepdim=True)
    if before is not None and config.hysteresis:
        own = torch.where(before.is_refined(index), own * (1 + config.hysteresis), own)
    spread = own
    for _ in range(config.buffer):
        spread = _largest_around(spread, shape, periodic)
    spread = torch.where(own < 0, own, spread)
    allowed = exists
    if config.balance and index:
        allowed = exists & (_largest_around((~exists).to(own.dtype), shape, periodic) == 0)
    if config.threshold is not None:
        allowed = allowed & (spread > config.threshold * largest) & (own >= 0)
    own, spread, allowed = (values.gather(1, nodes) for values in (own, spread, allowed))

    order = torch.arange(nodes.shape[1], device=nodes.device).expand_as(nodes)
    for values in (own, spread, allowed.to(torch.uint8)):  # the last counts most, being sorted by last
        order = order.gather(1, values.gather(1, order).argsort(dim=1, descending=True, stable=True))
    chosen = order[:, :count]
    if not config.may_vary:
        return chosen.sort(dim=1).values, None
    refines = allowed.gather(1, chosen)
    behind = (chosen + nodes.shape[1] * ~refines).argsort(dim=1)
    return chosen.gather(1, behind), refines.gather(1, behind)


def _largest_around(
    values: Float[Tensor, "batch node"], shape: tuple[int, ...], periodic: Bool[Tensor, "batch axis"]
) -> Float[Tensor, "batch node"]:
    """Returns the largest value of every patch and those that touch it."""
    values = values.unflatten(1, shape)
    for axis in range(len(shape)):
        wraps = periodic[:, axis].view(-1, *(1,) * len(shape))
        largest = values
        for step, edge in ((1, 0), (-1, shape[axis] - 1)):
            moved = values.roll(step, axis + 1)
            at_edge = torch.arange(shape[axis], device=values.device) == edge
            at_edge = at_edge.view(-1, *(1,) * (len(shape) - 1 - axis))
            largest = torch.maximum(largest, torch.where(at_edge & ~wraps, values, moved))
        values = largest
    return values.flatten(1)
