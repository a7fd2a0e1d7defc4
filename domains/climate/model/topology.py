"""What lies beyond the edges of a grid of latitudes and longitudes: the other side of the pole, or nothing that is
known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domains.climate.data.regrid import LatLonGrid
from domains.climate.data.variables import is_wind
from sciml.nn.topology import Odd, Plane, Side, Sphere

POLE_DEGREES = 1e-3
"""Distance at which a row is on a pole."""


def topology_of(latitude: Sequence[float], longitude: Sequence[float]) -> Sphere | Plane:
    """Returns the topology of a grid: a sphere, a band around it, or a box with open sides."""
    grid = LatLonGrid(np.asarray(latitude), np.asarray(longitude))
    if grid.is_global:
        north, south = (abs(90.0 - abs(latitude[row])) < POLE_DEGREES for row in (0, -1))
        return Sphere((north, south))
    side = Side.PERIODIC if grid.goes_round else Side.OPEN
    return Plane((side, side), (Side.OPEN, Side.OPEN))


def odd_of(names: Sequence[str]) -> Odd:
    """Returns which fields change their signs beyond a pole: both parts of the wind."""
    winds = [is_wind(name) for name in names]
    return winds, winds
