"""The noise by which members of an ensemble differ, as large as the errors that its spread is to foretell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.batch import FieldBatch
from domains.climate.forecast.metrics import SPREAD_SKILL
from sciml.domain.score import Score
from sciml.forecast.members import drawn_noise

LEAST, MOST = 0.25, 4.0
"""Factors of noise; beyond them a model would be asked for what it has never seen."""


class ForecastNoise:
    """Draws noise for forecasts over intervals.

    It grows with the square root of the interval, as errors do that add up at random; by how much more or less its
    effect has to grow is found on the validation split.

    Args:
        length: of the noise.

    Attributes:
        factors: of the noise of steps, by their hours; between them they are interpolated, beyond them kept.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.factors: Mapping[str, float] = {}

    def of(self, batch: FieldBatch) -> Float[Tensor, "batch noise"]:
        """Returns the noise of each sample's next step."""
        hours = batch.intervals[:, :1]
        size = (hours / 24).sqrt()
        if self.factors:
            size = size * torch.from_numpy(self._factors_at(hours.cpu().numpy())).to(size)
        assert batch.noise is not None
        return drawn_noise(batch.noise, batch.steps_taken, self.length).to(batch.state) * size.to(batch.state)

    def _factors_at(self, hours: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        known = {0.0: 1.0} if not self.factors else {float(name): factor for name, factor in self.factors.items()}
        return np.asarray(np.interp(hours, sorted(known), [known[at] for at in sorted(known)]))

    def better_factors(self, scores: Sequence[Score]) -> dict[str, float]:
        """Returns the factors with which spreads would have been as large as errors, had they grown with the noise.

        Args:
            scores: of ensembles with the present factors; the geometric mean over variables counts.
        """
        ratios: dict[float, list[float]] = defaultdict(list)
        for score in scores:
            if score.metric == SPREAD_SKILL and score.lead_time_h is not None and 0 < score.value < math.inf:
                ratios[score.lead_time_h].append(math.log(score.value))
        better = {}
        for hours, logarithms in sorted(ratios.items()):
            factor = float(self._factors_at(np.array(hours))) * math.exp(-sum(logarithms) / len(logarithms))
            better[f"{hours:g}"] = min(MOST, max(LEAST, factor))
        return better
