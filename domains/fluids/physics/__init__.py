"""Simulators of physics other than miniWeather's: each a file, without units, batched over flows."""

from collections.abc import Mapping

from domains.fluids.physics.advection import ADVECTION
from domains.fluids.physics.burgers import BURGERS
from domains.fluids.physics.cylinder_wake import CYLINDER_WAKE
from domains.fluids.physics.double_gyre import DOUBLE_GYRE
from domains.fluids.physics.kind import Physics, Simulation, run
from domains.fluids.physics.plane import Plane
from domains.fluids.physics.shallow_water import SHALLOW_WATER
from domains.fluids.physics.vortices import VORTICES

PHYSICS: Mapping[str, Physics] = {
    "shallow_water": SHALLOW_WATER,
    "burgers": BURGERS,
    "advection": ADVECTION,
    "vortices": VORTICES,
    "double_gyre": DOUBLE_GYRE,
    "cylinder_wake": CYLINDER_WAKE,
}

__all__ = ["PHYSICS", "Physics", "Plane", "Simulation", "run"]
