"""Finds obstacles in files that do not name them: cells without values, or in which nothing ever happens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import ndimage

from domains.fluids.data.readers.source import Frames

LOOKS = 5
"""Frames that are looked at, from the first to the last; all of a shorter flow."""
MOSTLY = 0.5
"""Share of the cells around a still region that must move where it is an obstacle."""


def obstacles(
    frames: Frames, num_times: int, variables: Sequence[str], winds: Sequence[str] | None
) -> Bool[np.ndarray, "z x"] | None:
    """Finds cells without fluid: where values are missing at the start, or where there is no wind and no change.

    A fluid may be at rest, too. So the flow must pass a still region: where what lies around it is at rest as well at
    some time in the second half, a front has not come there yet. Cells in which anything but the wind changes, such as
    the pressure on a wall or the heat in calm air, hold fluid. A frame without any wind tells nothing.

    Args:
        variables: names of all that changes in time.
        winds: which of them are the velocity; None: no zero tells of an obstacle.

    Returns:
        None where there is no obstacle.
    """
    looks = sorted({round(frame) for frame in np.linspace(0, num_times - 1, LOOKS)})
    mask = np.isnan(_look(frames, 0, winds or variables)).any(0)
    if winds is not None:
        still = np.stack([(_look(frames, time, winds) == 0).all(0) for time in looks])
        at_rest = _passed_by(still[~still.all((1, 2))])
        others = [name for name in variables if name not in winds]
        if others and at_rest.any():
            at_rest &= ~_changes(frames, looks, others)
        mask |= at_rest
    return mask if mask.any() else None


def _look(frames: Frames, time: int, variables: Sequence[str]) -> Shaped[np.ndarray, "variable z x"]:
    return frames.read(slice(time, time + 1), variables)[0]


def _changes(frames: Frames, looks: Sequence[int], variables: Sequence[str]) -> Bool[np.ndarray, "z x"]:
    """Says where any of some variables is not always the same."""
    first = _look(frames, looks[0], variables)
    changed = np.zeros(first.shape[1:], dtype=bool)
    for time in looks[1:]:
        changed |= (_look(frames, time, variables) != first).any(0)
    return changed


def _passed_by(still: Bool[np.ndarray, "look z x"]) -> Bool[np.ndarray, "z x"]:
    """Returns the regions that are always still while what is around them mostly moves."""
    if not len(still):
        return np.zeros(still.shape[1:], dtype=bool)
    at_rest = still.all(0)
    regions, count = ndimage.label(at_rest)
    region, beside = _borders(regions)
    around = np.maximum(np.bincount(region, minlength=count + 1), 1)
    kept = np.ones(count + 1, dtype=bool)
    for look in still[(len(still) - 1) // 2 :]:
        kept &= np.bincount(region, look.flat[beside], minlength=count + 1) < MOSTLY * around
    return at_rest & kept[regions]


def _borders(regions: Shaped[np.ndarray, "z x"]) -> tuple[Shaped[np.ndarray, "border"], Shaped[np.ndarray, "border"]]:
    """Returns the sides that regions share with cells outside of them: the region's number, and that of the cell."""
    cells = np.arange(regions.size).reshape(regions.shape)
    numbers, beside = [], []
    for axis in (0, 1):
        low, high = (np.take(cells, np.arange(a, regions.shape[axis] + b), axis) for a, b in ((0, -1), (1, 0)))
        for inside, outside in ((low, high), (high, low)):
            chosen = (regions.flat[inside] > 0) & (regions.flat[outside] == 0)
            numbers.append(regions.flat[inside[chosen]])
            beside.append(outside[chosen])
    return np.concatenate(numbers), np.concatenate(beside)
