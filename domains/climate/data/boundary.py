"""The frame of a region: its outermost rows and columns, where the weather outside is given and not predicted.

A limited-area model cannot know what comes in. As those of weather services it is given the fields at its edges at the
end of each step, from the data or from a model of a larger area, and it is scored inside.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from domains.climate.data.schema import ClimateSchema, cell_area_weights, goes_round, polar_ends
from domains.climate.data.states import States

SUFFIX = "_at_boundary"
LARGEST_SHARE = 8
"""A side's frame is at most this part of the region's shorter side."""


def boundary_frame(schema: ClimateSchema, width: int) -> Bool[np.ndarray, "latitude longitude"] | None:
    """Says which cells of a region are given; None on the globe, which has no edge, and has none at a pole."""
    if not schema.is_region:
        return None
    rows, columns = schema.grid_shape
    width = max(1, min(width, min(rows, columns) // LARGEST_SHARE))
    frame = np.zeros((rows, columns), dtype=bool)
    first, last = polar_ends(schema.latitude, schema.longitude)
    frame[:width], frame[rows - width :] = not first, not last
    if not goes_round(schema.longitude):
        frame[:, :width] = frame[:, -width:] = True
    return frame


def boundary_names(schema: ClimateSchema) -> tuple[str, ...]:
    """Returns the names of the fields by which a model is given the edges of a region; none on the globe."""
    return tuple(f"{name}{SUFFIX}" for name in schema.inputs) if schema.is_region else ()


def score_weights(
    schema: ClimateSchema,
    frame: Bool[np.ndarray, "latitude longitude"] | None,
    rows: Sequence[float] | np.ndarray | None = None,
) -> Float[np.ndarray, "latitude _longitude"]:
    """Returns the weight of each cell in means over the globe, or inside of a region's frame; their mean is 1.

    Args:
        rows: weight of each row; by default the exact area of its cells.
    """
    weights = np.asarray(cell_area_weights(schema.latitude) if rows is None else rows, dtype=np.float64)[:, None]
    if frame is None:
        return weights / weights.mean()
    inside = np.where(frame, 0.0, weights)
    return inside / inside.mean()


class Surroundings:
    """Reads what is given at the edges of a region from data that hold the times ahead.

    Args:
        states: on the region's grid.
    """

    def __init__(self, states: States) -> None:
        self.states = states
        self._known = {round(hour * 60): position for position, hour in enumerate(states.hours)}
        self._has_ended = False

    def __call__(self, hours: Float[Tensor, "batch"]) -> Float[Tensor, "batch channel latitude longitude"] | None:
        """Returns the states at some times; None where the data do not have one of them, which is said once."""
        positions = [self._known.get(round(hour * 60)) for hour in hours.tolist()]
        if None in positions:
            if not self._has_ended:
                last = self.states.calendar.show(self.states.times[-1])
                print(
                    f"the data end at {last}: beyond, the region's edges stay as they are", file=sys.stderr, flush=True
                )
            self._has_ended = True
            return None
        return torch.from_numpy(self.states.read(np.array(positions)))
