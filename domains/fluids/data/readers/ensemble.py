"""This project's simulated ensembles: one NetCDF file of all members, see ``domains.fluids.data.writers.ensemble``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains.fluids.data.boundary import OBSTACLE, Boundary
from domains.fluids.data.readers.netcdf import opened, read, require
from domains.fluids.data.readers.source import Axis, FlowSource
from domains.fluids.data.writers.ensemble import FORMAT, PROFILES, VERSION
from domains.fluids.solver.cases import Flow
from sciml.core.config import build
from sciml.core.errors import ConfigError, DataError


@dataclass(frozen=True)
class MemberFrames:
    """Reads one member's part of the file.

    Attributes:
        names: of variables in the file, by those that models know.
    """

    file: str
    member: int
    names: Mapping[str, str]

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        return np.stack([read(self.file, self.names[name], (self.member, times)) for name in variables], axis=1)


@dataclass(frozen=True)
class StackedFrames:
    """Reads one member's part of a file of the first version, which has all variables in one."""

    file: str
    member: int
    variables: tuple[str, ...]

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        # a chunk has all variables of a frame
        channels = [self.variables.index(name) for name in variables]
        return read(self.file, "fields", (self.member, times))[:, channels]


def is_ensemble(dataset: Any) -> bool:
    return getattr(dataset, "format", None) == FORMAT


def open_ensemble(file: str, boundary: Boundary | None) -> Iterator[FlowSource]:
    """Opens one flow a member.

    Raises:
        DataError: another version wrote it.
    """
    dataset = opened(file)
    if dataset.version not in (1, VERSION):
        raise DataError(
            f"{file}: an ensemble of version {dataset.version}, this program reads {VERSION}; simulate it again"
        )
    names = _names(file)
    times, x, z = (read(file, name) for name in ("time", "x", "z"))
    along_x, along_z = Axis.of(x, f"{file}: x"), Axis.of(z, f"{file}: z")
    found = boundary or Boundary.of(**json.loads(dataset.boundary))
    profiles = {name: read(file, name) for name in PROFILES if name in dataset.variables}
    constants = {name: read(file, name) for name, v in dataset.variables.items() if "constant" in v.ncattrs()}
    masks = constants.pop(OBSTACLE, None)
    winds = ("uwnd", "wwnd") if {"uwnd", "wwnd"} <= set(names) else None
    units = (getattr(dataset["x"], "units", ""), getattr(dataset["time"], "units", ""))
    for member, flow in enumerate(_flows(file, len(dataset.dimensions["member"]))):
        frames = (
            StackedFrames(file, member, tuple(names)) if dataset.version == 1 else MemberFrames(file, member, names)
        )
        yield FlowSource(
            f"{file}@{member}", tuple(names), winds, times, along_x, along_z, found, frames,
            None if masks is None or not masks[member].any() else masks[member] > 0,
            profiles={name: values[member] for name, values in profiles.items()},
            constants={name: values[member] for name, values in constants.items()}, units=units, flow=flow,
        )  # fmt: skip


def _names(file: str) -> dict[str, str]:
    """Returns the names of the variables in the file, by those that models know."""
    dataset = opened(file)
    if dataset.version == 1:
        return {str(name): "fields" for name in read(file, "channel")}
    names = json.loads(dataset.variables_of_flow) if "variables_of_flow" in dataset.ncattrs() else []
    require(file, names, ("member", "time", "z", "x"))
    return {str(getattr(dataset[name], "name_in_model", name)): name for name in names}


def _flows(file: str, members: int) -> list[Flow | None]:
    """Returns what was simulated, where the file tells; forecasts of files that do not tell know no more."""
    if "flow" not in opened(file).variables:
        return [None] * members
    try:
        return [build(Flow, json.loads(str(text)), prefix="flow") if str(text) else None for text in read(file, "flow")]
    except (ConfigError, ValueError, TypeError) as error:
        raise DataError(f"{file}: its flows are damaged ({error})") from error
