"""Says what a mirror turns around: parts of vectors along its normal, and what tells how something turns."""

from __future__ import annotations

import re
from collections.abc import Sequence

from domains.fluids.amr.indicator_inputs import WINDS

ALONG_X = {WINDS["x"], "u", "vx"}
"""Names of winds along x, in small letters."""
TURNING = {
    "vorticity", "relative_vorticity", "absolute_vorticity", "potential_vorticity", "omega", "curl", "circulation",
    "stream_function", "streamfunction", "psi", "rotation", "rotation_rate", "angular_velocity", "coriolis",
    "coriolis_parameter", "beta", "wind_curl",
}  # fmt: skip
"""Names of what says how fast and which way something turns, in small letters."""
TURNING_CONSTANTS = TURNING | {"f", "f0"}
"""The same of constants; a variable ``f`` is more often the share of a liquid."""
COMPONENT = re.compile(r"(.*)_([xyz]+)")


def turned_by_mirror(variables: Sequence[str]) -> list[bool]:
    """Says of each variable whether a mirror that x is normal to changes its sign.

    It does so of ``uwnd``, of what is named as a part along x (``field_x``, ``stress_xy``, but not ``stress_xx``), and
    of what turns (``vorticity``).
    """
    return [_is_turned(name.lower(), TURNING) for name in variables]


def can_be_mirrored(constants: Sequence[str]) -> bool:
    """Says whether mirror images along x of flows with some constants are as likely as they: not on a plane that turns,
    nor where something drives them along x.
    """
    return not any(_is_turned(name.lower(), TURNING_CONSTANTS) for name in constants)


def _is_turned(name: str, turning: set[str]) -> bool:
    if name in ALONG_X or name in turning:
        return True
    component = COMPONENT.fullmatch(name)
    return component is not None and (component[2].count("x") % 2 == 1) != (component[1] in turning)
