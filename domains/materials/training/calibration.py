"""Measures whether predicted spreads are as large as the errors: coverage, and the expected normalized
calibration error.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sciml.domain.score import Metric

COVERAGE_68 = Metric("coverage_68", "errors within 1 std", better="nearer", perfect=0.68, unit="1", judges_spread=True)
COVERAGE_95 = Metric(
    "coverage_95", "errors within 1.96 std", better="nearer", perfect=0.95, unit="1", judges_spread=True
)
SCALED_ERROR = Metric("scaled_error", "error over spread", better="nearer", perfect=1.0, unit="1", judges_spread=True)
ENCE = Metric("ence", unit="1", judges_spread=True)
EDGES = torch.logspace(-8, 6, 71, dtype=torch.float64)
"""Between bins of spreads, five to a decade: fixed, so that sums of ranks can be added."""


class Calibration:
    """Sums over predictions that have a standard deviation.

    ``coverage_68`` and ``coverage_95`` are the shares of errors within 1 and 1.96 standard deviations (0.68 and 0.95
    where errors are Gaussian and spreads right); ``scaled_error`` is the rms of errors over that of spreads (1 where
    they are right, above where they are too small; a few spreads near zero do not decide it); ``ence`` is the expected
    normalized calibration error: over bins of equal spread, the mean of |rms spread - rms error| / rms spread, weighted
    by how many predictions a bin has.

    Source: Levi et al. (2022), https://doi.org/10.3390/s22155540.
    """

    def __init__(self) -> None:
        self.shares = torch.zeros(3, dtype=torch.float64)  # count, within 1, within 1.96
        self.bins = torch.zeros(len(EDGES) + 1, 3, dtype=torch.float64)  # count, spread^2, error^2

    def update(self, error: Float[Tensor, "*value"], spread: Float[Tensor, "*value"]) -> None:
        """Adds some predictions."""
        error, spread = error.flatten(), spread.flatten().clamp(min=1e-12)
        ratio = error.abs() / spread
        ones = torch.ones_like(ratio)
        self.shares += torch.stack([ones, (ratio < 1).double(), (ratio < 1.96).double()]).sum(1)
        columns = torch.stack([ones, spread.square(), error.square()], dim=1)
        self.bins.index_add_(0, torch.bucketize(spread, EDGES), columns)

    def sums(self) -> list[Tensor]:
        """Returns the accumulators."""
        return [self.shares, self.bins]

    def compute(self) -> dict[Metric, float]:
        """Returns the scores; none where nothing was added."""
        count, one, two = self.shares.tolist()
        if not count:
            return {}
        filled = self.bins[self.bins[:, 0] > 0]
        spread, error = (filled[:, column].sqrt() for column in (1, 2))
        ence = (filled[:, 0] * (spread - error).abs() / spread).sum() / count
        return {
            COVERAGE_68: one / count,
            COVERAGE_95: two / count,
            SCALED_ERROR: (self.bins[:, 2].sum() / self.bins[:, 1].sum()).sqrt().item(),
            ENCE: ence.item(),
        }
