"""Forecasts that are scored together, and what each kind of score makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sciml.domain.score import Score


@dataclass(frozen=True)
class ScoredCases:
    """Holds forecasts beside the truth, in physical units and float64.

    Attributes:
        lead: positions among the lead times that are scored.
        fields: the forecast; of an ensemble its mean.
        ensemble: the members, or None.
        known: where the truth is known; None for everywhere.
    """

    lead: Int[Tensor, "case"]
    truth: Float[Tensor, "case channel latitude longitude"]
    fields: Float[Tensor, "case channel latitude longitude"]
    ensemble: Float[Tensor, "case member channel latitude longitude"] | None = None
    known: Bool[Tensor, "case channel latitude longitude"] | None = None

    @property
    def members(self) -> Float[Tensor, "case member channel latitude longitude"]:
        """Returns the members; a single forecast is one."""
        return self.fields[:, None] if self.ensemble is None else self.ensemble

    def is_whole(self) -> Bool[Tensor, "case channel"]:
        """Says which channels are known in every cell, in the truth and in all members."""
        if self.known is None:
            return torch.ones(self.truth.shape[:2], dtype=torch.bool, device=self.truth.device)
        return self.truth.isfinite().all(-1).all(-1) & self.members.isfinite().all(-1).all(-1).all(1)


class PartialScores(Protocol):
    """Describes scores of one kind that add up over cases and ranks."""

    def sums(self) -> list[Tensor]:
        """Returns the accumulators in a fixed order; adding them over ranks in place is all there is to do."""
        ...

    def update(self, cases: ScoredCases) -> None: ...

    def scores(self) -> list[Score]: ...
