"""An ensemble as it waits in parts, and as one NetCDF file of all members.

Dimensions member, time, channel, z and x; ``fields`` is chunked by frame, so that any frame is read alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from domains.fluids.boundary import Boundary
from domains.fluids.solver import VARIABLES, Background, Flow, Grid
from sciml.core.files import atomic_file

FORMAT = "sciml-fluids-ensemble"
VERSION = 1
UNITS = {"dens": "kg m-3", "uwnd": "m s-1", "wwnd": "m s-1", "theta": "K"}
LONG_NAMES = {
    "dens": "perturbation of density",
    "uwnd": "wind along x",
    "wwnd": "wind along z",
    "theta": "perturbation of potential temperature",
}
BOUNDARY = Boundary.of("periodic", "wall")


@dataclass(frozen=True)
class Ensemble:
    """Simulated flows.

    Attributes:
        flows: one a member.
        times: s, of all members.
        parts: ``.npy`` files of some members each, in order: float32 (member, time, 4, z, x).
        record: where it comes from.
    """

    flows: Sequence[Flow]
    grid: Grid
    times: np.ndarray
    parts: Sequence[Path]
    record: dict[str, Any]

    def members(self) -> Iterator[np.ndarray]:
        """The fields (time, 4, z, x) of each, read as they are used."""
        for part in self.parts:
            yield from np.load(part, mmap_mode="r")

    @cached_property
    def profiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Density and potential temperature of the backgrounds, (member, z)."""
        backgrounds = [Background.of(self.grid, flow.frequency) for flow in self.flows]
        return np.stack([b.dens for b in backgrounds]), np.stack([b.theta for b in backgrounds])


def write_ensemble(path: Path, ensemble: Ensemble) -> None:
    """Writes one NetCDF-4 file, whole or not at all."""
    import netCDF4

    grid, (hy_dens, hy_theta) = ensemble.grid, ensemble.profiles
    sizes = {
        "member": len(ensemble.flows),
        "time": len(ensemble.times),
        "channel": len(VARIABLES),
        "z": grid.nz,
        "x": grid.nx,
    }
    with atomic_file(path) as temporary, netCDF4.Dataset(temporary, "w") as file:
        file.setncatts({"format": FORMAT, "version": VERSION, "boundary": json.dumps(BOUNDARY.names)})
        file.setncatts({name: _text(value) for name, value in ensemble.record.items()})
        for name, size in sizes.items():
            file.createDimension(name, size)
        for name, values, unit in (("time", ensemble.times, "s"), ("z", grid.z, "m"), ("x", grid.x, "m")):
            _describe(file.createVariable(name, "f8", (name,)), values, unit)
        _describe(file.createVariable("channel", str, ("channel",)), np.array(VARIABLES, dtype=object))
        cases = np.array([flow.case for flow in ensemble.flows], dtype=object)
        _describe(file.createVariable("case", str, ("member",)), cases)
        drawn = np.array([json.dumps(asdict(flow)) for flow in ensemble.flows], dtype=object)
        _describe(file.createVariable("flow", str, ("member",)), drawn)
        _describe(file.createVariable("hy_dens", "f8", ("member", "z")), hy_dens, "kg m-3")
        _describe(file.createVariable("hy_theta", "f8", ("member", "z")), hy_theta, "K")
        chunk = (1, 1, len(VARIABLES), grid.nz, grid.nx)
        fields = file.createVariable("fields", "f4", tuple(sizes), chunksizes=chunk)
        fields.units = json.dumps(UNITS)
        for member, values in enumerate(ensemble.members()):
            for frame, field in enumerate(values):
                fields[member, frame] = field


def _describe(variable: Any, values: np.ndarray, unit: str = "") -> None:
    variable[:] = values
    if unit:
        variable.units = unit


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
