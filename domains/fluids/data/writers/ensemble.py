"""An ensemble as it waits in parts, and as one NetCDF file of all members.

One CF variable a field, on member, time, z and x, which xarray, ncview and Panoply know; chunked by frame, so that any
frame is read alone. http://cfconventions.org
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from domains.fluids.data.boundary import OBSTACLE, Boundary
from domains.fluids.solver import VARIABLES, Background, Flow, SolverGrid
from sciml.core.files import atomic_file

FORMAT = "sciml-fluids-ensemble"
VERSION = 2
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
TAKEN = {"member", "time", "z", "x", "case", "flow", OBSTACLE, *PROFILES}
"""Names in a file that are no fields."""


@dataclass(frozen=True)
class Ensemble:
    """Holds simulated flows.

    Attributes:
        layout: variables, grid, constants and what else the flows have in common.
        times: of all members.
        parts: ``.npy`` files of some members each, in order: (member, time, variable, z, x).
        record: where it comes from.
        precision: of what is written, float32 or float64.
        flows: of miniWeather, one a member; none of other physics.
    """

    layout: Layout
    times: np.ndarray
    parts: Sequence[Path]
    record: dict[str, Any]
    precision: str = "float32"
    flows: Sequence[Flow] = ()

    def members(self) -> Iterator[np.ndarray]:
        """Yields the fields (time, variable, z, x) of each member, read as they are used."""
        for part in self.parts:
            yield from np.load(part, mmap_mode="r")


def write_ensemble(path: Path, ensemble: Ensemble) -> None:
    """Writes one NetCDF-4 file, whole or not at all."""
    import netCDF4

    with atomic_file(path) as temporary, netCDF4.Dataset(temporary, "w") as file:
        variables = ensemble.layout.prepare(file, len(ensemble.times), ensemble.record, ensemble.precision)
        file["time"][:] = ensemble.times
        write_flows(file, ensemble.flows)
        for member, values in enumerate(ensemble.members()):
            for frame, fields in enumerate(values):
                for variable, field in zip(variables, fields, strict=True):
                    variable[member, frame] = field


def write_flows(file: Any, flows: Sequence[Flow | None]) -> None:
    """Writes what each member simulates; nothing where that is not known."""
    if any(flow is not None for flow in flows):
        texts = ["" if flow is None else json.dumps(asdict(flow)) for flow in flows]
        cases = ["" if flow is None else flow.case for flow in flows]
        for name, values in (("case", cases), ("flow", texts)):
            _describe(file.createVariable(name, str, ("member",)), np.array(values, dtype=object))


@dataclass(frozen=True)
class Layout:
    """Says what a file of flows is laid out for.

    Attributes:
        members: their number.
        variables: names.
        z, x: centers of cells.
        profiles: density and potential temperature of the air at rest, (member, 2, z); None: not known.
        constants: fields that do not change in time, (member, z, x), by name; ``obstacle`` is 1 where no fluid is.
        units: of length and time; empty where they are not known, or are none.
    """

    members: int
    variables: Sequence[str]
    z: np.ndarray
    x: np.ndarray
    boundary: Boundary
    profiles: np.ndarray | None = None
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    units: tuple[str, str] = ("m", "s")

    @classmethod
    def of_weather(cls, flows: Sequence[Flow], grid: SolverGrid) -> Layout:
        """Returns the layout of miniWeather's flows, with the profiles of their air at rest."""
        backgrounds = [Background.of(grid, flow.frequency) for flow in flows]
        profiles = np.stack([np.stack([b.dens for b in backgrounds]), np.stack([b.theta for b in backgrounds])], axis=1)
        return cls(len(flows), VARIABLES, grid.z, grid.x, BOUNDARY, profiles)

    def prepare(
        self, file: Any, num_times: int | None, record: Mapping[str, Any], precision: str = "float32"
    ) -> list[Any]:
        """Writes into an empty NetCDF file all but times and fields, and returns the variables of the fields.

        Args:
            num_times: None lets the file grow.
            record: attributes of the file.
            precision: of the fields.
        """
        names = [_file_name(name) for name in self.variables]
        file.setncatts({"Conventions": "CF-1.8", "format": FORMAT, "version": VERSION})
        file.setncatts({"boundary": json.dumps(self.boundary.names), "variables_of_flow": json.dumps(names)})
        file.setncatts({name: _text(value) for name, value in record.items()})
        sizes = {"member": self.members, "time": num_times, "z": len(self.z), "x": len(self.x)}
        for name, size in sizes.items():
            file.createDimension(name, size)
        length, time = self.units
        file.createVariable("time", "f8", ("time",)).setncatts({"axis": "T", **_unit(time)})
        for name, values in (("z", self.z), ("x", self.x)):
            _describe(file.createVariable(name, "f8", (name,)), values, length, axis=name.upper())
        if self.profiles is not None:
            for column, (name, unit) in enumerate(PROFILES.items()):
                _describe(file.createVariable(name, "f8", ("member", "z")), self.profiles[:, column], unit)
        for name, values in self.constants.items():
            known = name if name == OBSTACLE else _file_name(name)
            _describe(file.createVariable(known, "f4", ("member", "z", "x")), values, constant=1)
        chunk = (1, 1, len(self.z), len(self.x))
        return [
            self._field(file.createVariable(name, np.dtype(precision), tuple(sizes), chunksizes=chunk), known)
            for known, name in zip(self.variables, names, strict=True)
        ]

    def _field(self, variable: Any, known: str) -> Any:
        """Says what a variable of the file is."""
        is_ours = set(UNITS) <= set(self.variables)
        about = {"long_name": LONG_NAMES.get(known, known) if is_ours else known}
        variable.setncatts({**about, **_unit(UNITS.get(known, "") if is_ours else ""), "name_in_model": known})
        return variable


def _file_name(name: str) -> str:
    """Returns a name that NetCDF allows and that no coordinate has."""
    allowed = re.sub(r"[^\w.+@-]", "_", name)
    return f"{allowed}_field" if allowed in TAKEN else allowed


def _describe(variable: Any, values: np.ndarray, unit: str = "", **about: Any) -> None:
    variable[:] = values
    variable.setncatts({**_unit(unit), **about})


def _unit(unit: str) -> dict[str, str]:
    return {"units": unit} if unit else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
