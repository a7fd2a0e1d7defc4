"""This project's simulated ensembles: one NetCDF file of all members, see ``domains.fluids.data.writers.ensemble``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.netcdf import opened, read
from domains.fluids.data.readers.source import FlowSource, spacing
from domains.fluids.data.writers.ensemble import FORMAT, PROFILES, VERSION
from domains.fluids.solver.cases import Flow
from sciml.core.config import build
from sciml.core.errors import ConfigError, DataError


@dataclass(frozen=True)
class MemberFrames:
    """Reads one member's part of the file."""

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
    if dataset.version != VERSION:
        raise DataError(
            f"{file}: an ensemble of version {dataset.version}, this program reads {VERSION}; simulate it again"
        )
    variables = tuple(map(str, read(file, "channel")))
    times, x, z = (read(file, name) for name in ("time", "x", "z"))
    dx, dz = spacing(x, f"{file}: x"), spacing(z, f"{file}: z")
    found = boundary or Boundary.of(**json.loads(dataset.boundary))
    profiles = {name: read(file, name) for name in PROFILES if name in dataset.variables}
    flows = _flows(file, len(dataset.dimensions["member"]))
    winds = ("uwnd", "wwnd") if {"uwnd", "wwnd"} <= set(variables) else None
    for member, flow in enumerate(flows):
        yield FlowSource(
            f"{file}@{member}", variables, winds, times, dx, dz, (len(z), len(x)), found,
            MemberFrames(file, member, variables), profiles={name: values[member] for name, values in profiles.items()},
            units=("m", "s"), flow=flow,
        )  # fmt: skip


def _flows(file: str, members: int) -> list[Flow | None]:
    """Returns what was simulated, where the file tells; forecasts of files that do not tell know no more."""
    if "flow" not in opened(file).variables:
        return [None] * members
    try:
        return [build(Flow, json.loads(str(text)), prefix="flow") if str(text) else None for text in read(file, "flow")]
    except (ConfigError, ValueError, TypeError) as error:
        raise DataError(f"{file}: its flows are damaged ({error})") from error
