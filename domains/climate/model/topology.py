"""What lies beyond the edges of a grid of latitudes and longitudes: the other side of the pole, or nothing that is
known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domains.climate.data.regrid import LatLonGrid
from domains.climate.data.schema import POLE_DEGREES, polar_ends
from domains.climate.data.variables import is_wind
from sciml.nn.topology import Cap, Odd, Plane, Side, Sphere


def topology_of(latitude: Sequence[float], longitude: Sequence[float]) -> Sphere | Cap | Plane:
    """Returns the topology of a grid: a sphere, the cap around a pole, a band around the axis, or a box with open
    sides.
    """
    grid = LatLonGrid(np.asarray(latitude), np.asarray(longitude))
    first, last = polar_ends(grid.latitude, grid.longitude)
    north, south = (abs(90.0 - abs(latitude[row])) < POLE_DEGREES for row in (0, -1))
    if first and last:
        return Sphere((north, south))
    if first or last:
        return Cap(first, north if first else south)
    side = Side.PERIODIC if grid.goes_round else Side.OPEN
    return Plane((side, side), (Side.OPEN, Side.OPEN))


def odd_of(names: Sequence[str]) -> Odd:
    """Returns which fields change their signs beyond a pole: both parts of the wind."""
    winds = [is_wind(name) for name in names]
    return winds, winds
