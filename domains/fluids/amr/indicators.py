"""Scores patches, 0 or more, from normalized states, to tell where to refine. Patches outside the grid get -1.

Scores of a sample depend on nothing else in its batch. ``hybrid`` adds variance, squared vorticity and the past
increment, each over its mean in the sample, as far as they are known. ``residual`` is by how much a solver on a coarser
grid steps otherwise, for models that correct a solver. ``random`` and ``oracle`` are for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from domains.fluids.amr.forest import PatchGeometry
from domains.fluids.amr.indicator_inputs import WINDS, IndicatorInputs, patch_means
from sciml.core.errors import ConfigError

Indicator = Callable[[IndicatorInputs, PatchGeometry, int], Float[Tensor, "batch node"]]
"""From states and a level to the scores of all its patches."""

OUTSIDE = -1.0
TINY = 1e-12


def variance(evidence: IndicatorInputs, geometry: PatchGeometry, level: int) -> Float[Tensor, "batch node"]:
    """Returns the variance inside a patch, mean over channels."""
    both = torch.stack([evidence.fields, evidence.fields.square()])
    (means, squares), inside = _stacked_means(both, geometry, level)
    return (squares - means.square()).clamp(min=0).mean(dim=1).masked_fill(~inside, OUTSIDE)


def gradient(evidence: IndicatorInputs, geometry: PatchGeometry, level: int) -> Float[Tensor, "batch node"]:
    """Returns the squared gradient, per cell, mean over cells and channels."""
    along_z, along_x = evidence.gradients(range(len(evidence.channels)))
    return _mean((along_z.square() + along_x.square()).mean(dim=1), geometry, level)


def vorticity(evidence: IndicatorInputs, geometry: PatchGeometry, level: int) -> Float[Tensor, "batch node"]:
    """Returns the squared vorticity of the normalized winds, per cell.

    Raises:
        ConfigError: where there are no winds.
    """
    if not has_winds(evidence):
        raise ConfigError(
            f"there is no vorticity of {', '.join(evidence.channels)}", key="model.indicator", hint="use variance"
        )
    places = [evidence.channels.index(WINDS[axis]) for axis in ("x", "z")]
    along_z, along_x = evidence.gradients(places)
    return _mean((along_x[:, 1] - along_z[:, 0]).square(), geometry, level)


def increment(evidence: IndicatorInputs, geometry: PatchGeometry, level: int) -> Float[Tensor, "batch node"]:
    """Returns the squared change since the frame before, mean over cells and channels.

    Raises:
        ConfigError: where that frame is not known.
    """
    return _change(_difference(evidence, evidence.previous), "the frame before", geometry, level)


def residual(evidence: IndicatorInputs, geometry: PatchGeometry, level: int) -> Float[Tensor, "batch node"]:
    """Returns the squared difference of a solver's steps on two grids, mean over cells and variables.

    Raises:
        ConfigError: where there is no solver.
    """
    return _change(evidence.residual, "a solver's residual", geometry, level)


def oracle(evidence: IndicatorInputs, geometry: PatchGeometry, level: int) -> Float[Tensor, "batch node"]:
    """Returns the squared change to come, which only the truth knows.

    Raises:
        ConfigError: where the truth is not given.
    """
    return _change(_difference(evidence, evidence.truth), "the truth", geometry, level)


def random(evidence: IndicatorInputs, geometry: PatchGeometry, level: int) -> Float[Tensor, "batch node"]:
    """Returns numbers from 0 to 1 that depend on a sample's state, bit for bit, and on the patch; not on any
    generator.
    """
    bits = evidence.fields.float().contiguous().view(torch.int32).flatten(1).sum(dim=1, dtype=torch.int64)
    nodes = torch.arange(geometry.num_nodes(level), device=bits.device)
    mixed = (bits[:, None] + nodes * 40503 + level * 65537) & 0xFFFFFFFF
    for factor in (0x45D9F3B, 0x45D9F3B, 1):
        mixed = ((mixed ^ (mixed >> 16)) * factor) & 0xFFFFFFFF
    _, inside = patch_means(evidence.fields[:, :1], geometry, level)
    return (mixed.float() / 2**32).masked_fill(~inside, OUTSIDE)


def hybrid(evidence: IndicatorInputs, geometry: PatchGeometry, level: int) -> Float[Tensor, "batch node"]:
    """Adds variance, squared vorticity and the past increment, each over its mean in the sample."""
    terms = relative_terms(evidence, geometry, level, ("variance", "vorticity", "increment"))
    scores = torch.stack(list(terms.values())).sum(dim=0)
    return scores.masked_fill(scores < 0, OUTSIDE)


INDICATORS: Mapping[str, Indicator | None] = {
    "variance": variance,
    "vorticity": vorticity,
    "gradient": gradient,
    "increment": increment,
    "residual": residual,
    "hybrid": hybrid,
    "learned": None,  # has parameters: LearnedIndicator
    "random": random,
    "oracle": oracle,
}


class LearnedIndicator(nn.Module):
    """Maps variance, gradient, vorticity and increment of a patch to a score from 0 to 1 by a small network.

    Children's contributions are multiplied by their parent's score, through which it is learned.
    The terms are logarithms of their share in the sample's mean; one that is not known counts as the mean.

    Source of the gate: Raposo et al. (2024), https://doi.org/10.48550/arXiv.2404.02258.
    """

    TERMS = ("variance", "gradient", "vorticity", "increment")
    HIDDEN = 16

    def __init__(self, *more_terms: str) -> None:
        super().__init__()
        self.terms = (*self.TERMS, *more_terms)
        self.first = nn.Linear(len(self.terms), self.HIDDEN)
        self.second = nn.Linear(self.HIDDEN, 1)

    def forward(self, evidence: IndicatorInputs, geometry: PatchGeometry, level: int) -> Float[Tensor, "batch node"]:
        with torch.no_grad():
            terms = relative_terms(evidence, geometry, level, self.terms)
            known = next(iter(terms.values()))
            outside = known < 0
            features = [terms.get(name, torch.ones_like(known)).clamp(min=0) for name in self.terms]
            logs = torch.log(torch.stack(features, dim=-1) + 1e-3).to(self.first.weight.dtype)
        return self.second(F.silu(self.first(logs)))[..., 0].sigmoid().masked_fill(outside, OUTSIDE)


def relative_terms(
    evidence: IndicatorInputs, geometry: PatchGeometry, level: int, names: tuple[str, ...]
) -> dict[str, Float[Tensor, "batch node"]]:
    """Returns those of the named indicators that can be known, each over its mean in the sample."""
    relative = {}
    for name in names:
        if (name == "vorticity" and not has_winds(evidence)) or (name == "increment" and evidence.previous is None):
            continue
        if name == "residual" and evidence.residual is None:
            continue
        indicator = INDICATORS[name]
        assert indicator is not None
        scores = indicator(evidence, geometry, level)
        inside = scores >= 0
        mean = (scores * inside).sum(dim=1, keepdim=True) / inside.sum(dim=1, keepdim=True)
        relative[name] = torch.where(inside, scores / (mean + TINY), OUTSIDE)
    return relative


def has_winds(evidence: IndicatorInputs) -> bool:
    """Says whether both winds are among the channels."""
    return set(WINDS.values()) <= set(evidence.channels)


def _difference(
    evidence: IndicatorInputs, other: Float[Tensor, "batch channel z x"] | None
) -> Float[Tensor, "batch channel z x"] | None:
    return None if other is None else other - evidence.fields


def _change(
    difference: Float[Tensor, "batch channel z x"] | None, what: str, geometry: PatchGeometry, level: int
) -> Float[Tensor, "batch node"]:
    if difference is None:
        raise ConfigError(
            f"{what} is not known to the indicator", key="model.indicator", hint="use hybrid, or give it to the model"
        )
    return _mean(difference.square().mean(dim=1), geometry, level)


def _mean(cells: Float[Tensor, "batch z x"], geometry: PatchGeometry, level: int) -> Float[Tensor, "batch node"]:
    means, inside = patch_means(cells, geometry, level)
    return means.masked_fill(~inside, OUTSIDE)


def _stacked_means(
    both: Float[Tensor, "2 batch *channel z x"], geometry: PatchGeometry, level: int
) -> tuple[Float[Tensor, "2 batch *channel node"], Bool[Tensor, "node"]]:
    means, inside = patch_means(both.flatten(0, 1), geometry, level)
    return means.unflatten(0, (2, -1)), inside
