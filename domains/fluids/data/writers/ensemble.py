"""An ensemble as it waits in parts, and as one NetCDF file of all members.

Dimensions member, time, channel, z and x; ``fields`` is chunked by frame, so that any frame is read alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.solver import VARIABLES, Background, Flow, SolverGrid
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
PROFILES = {"hy_dens": "kg m-3", "hy_theta": "K"}
"""Profiles of the air at rest, with their units."""
BOUNDARY = Boundary.of("periodic", "wall")


@dataclass(frozen=True)
class Ensemble:
    """Holds simulated flows.

    Attributes:
        flows: one a member.
        times: s, of all members.
        parts: ``.npy`` files of some members each, in order: float32 (member, time, 4, z, x).
        record: where it comes from.
    """

    flows: Sequence[Flow]
    grid: SolverGrid
    times: np.ndarray
    parts: Sequence[Path]
    record: dict[str, Any]

    def members(self) -> Iterator[np.ndarray]:
        """Yields the fields (time, 4, z, x) of each member, read as they are used."""
        for part in self.parts:
            yield from np.load(part, mmap_mode="r")

    @cached_property
    def profiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns density and potential temperature of the backgrounds, (member, z)."""
        backgrounds = [Background.of(self.grid, flow.frequency) for flow in self.flows]
        return np.stack([b.dens for b in backgrounds]), np.stack([b.theta for b in backgrounds])


def write_ensemble(path: Path, ensemble: Ensemble) -> None:
    """Writes one NetCDF-4 file, whole or not at all."""
    import netCDF4

    grid = ensemble.grid
    layout = Layout(len(ensemble.flows), VARIABLES, grid.z, grid.x, BOUNDARY, np.stack(ensemble.profiles, axis=1))
    with atomic_file(path) as temporary, netCDF4.Dataset(temporary, "w") as file:
        fields = layout.prepare(file, len(ensemble.times), ensemble.record)
        file["time"][:] = ensemble.times
        cases = np.array([flow.case for flow in ensemble.flows], dtype=object)
        _describe(file.createVariable("case", str, ("member",)), cases)
        drawn = np.array([json.dumps(asdict(flow)) for flow in ensemble.flows], dtype=object)
        _describe(file.createVariable("flow", str, ("member",)), drawn)
        for member, values in enumerate(ensemble.members()):
            for frame, field in enumerate(values):
                fields[member, frame] = field


@dataclass(frozen=True)
class Layout:
    """Says what a file of flows is laid out for.

    Attributes:
        members: their number.
        variables: names.
        z, x: centers of cells, m.
        profiles: density and potential temperature of the air at rest, (member, 2, z); None: not known.
    """

    members: int
    variables: Sequence[str]
    z: np.ndarray
    x: np.ndarray
    boundary: Boundary
    profiles: np.ndarray | None = None

    def prepare(self, file: Any, num_times: int | None, record: Mapping[str, Any]) -> Any:
        """Writes into an empty NetCDF file all but times and fields, and returns the variable of the fields.

        Args:
            num_times: None lets the file grow.
            record: attributes of the file.
        """
        file.setncatts({"format": FORMAT, "version": VERSION, "boundary": json.dumps(self.boundary.names)})
        file.setncatts({name: _text(value) for name, value in record.items()})
        sizes = {"member": self.members, "time": num_times, "channel": len(self.variables)}
        sizes |= {"z": len(self.z), "x": len(self.x)}
        for name, size in sizes.items():
            file.createDimension(name, size)
        file.createVariable("time", "f8", ("time",)).units = "s"
        for name, values in (("z", self.z), ("x", self.x)):
            _describe(file.createVariable(name, "f8", (name,)), values, "m")
        _describe(file.createVariable("channel", str, ("channel",)), np.array(self.variables, dtype=object))
        if self.profiles is not None:
            for column, (name, unit) in enumerate(PROFILES.items()):
                _describe(file.createVariable(name, "f8", ("member", "z")), self.profiles[:, column], unit)
        chunk = (1, 1, len(self.variables), len(self.z), len(self.x))
        fields = file.createVariable("fields", "f4", tuple(sizes), chunksizes=chunk)
        fields.units = json.dumps({name: UNITS.get(name, "") for name in self.variables})
        return fields


def _describe(variable: Any, values: np.ndarray, unit: str = "") -> None:
    variable[:] = values
    if unit:
        variable.units = unit


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
