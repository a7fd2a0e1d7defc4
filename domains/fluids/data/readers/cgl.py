"""NetCDF of the Computer Graphics Laboratory at ETH Zurich: velocity on (tdim, ydim, xdim), around obstacles.

Whatever else lies on these three, as a pressure, is a variable, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.netcdf import NetCDFFrames, opened, read, read_times, require
from domains.fluids.data.readers.obstacles import obstacles
from domains.fluids.data.readers.source import Axis, FlowSource
from sciml.core.errors import DataError

WINDS = ("u", "v")
DIMS = ("tdim", "ydim", "xdim")
BOUNDARY = Boundary.of("open", "wall")
"""The files do not tell: a channel that is flowed through, as around their cylinders."""


def is_cgl(dataset: Any) -> bool:
    return "tdim" in dataset.dimensions


def open_cgl(file: str, boundary: Boundary | None) -> Iterator[FlowSource]:
    """Opens the one flow of a file; y is our z.

    Raises:
        DataError: a variable is missing, or the flow has three dimensions of space.
    """
    if "zdim" in opened(file).dimensions:
        raise DataError(f"{file}: has three dimensions of space; cut a plane out of it, (tdim, ydim, xdim) are needed")
    require(file, WINDS, DIMS)
    for name in DIMS:
        require(file, (name,), (name,))
    times, unit = read_times(file, DIMS[0])
    y, x = (read(file, name).astype(np.float64) for name in DIMS[1:])
    length = str(getattr(opened(file)["xdim"], "units", ""))
    frames = NetCDFFrames(file)
    others = (name for name, variable in opened(file).variables.items() if variable.dimensions == DIMS)
    variables = tuple(dict.fromkeys((*WINDS, *others)))
    yield FlowSource(
        file, variables, WINDS, times, Axis.of(x, f"{file}: xdim"), Axis.of(y, f"{file}: ydim"),
        boundary or BOUNDARY, frames, obstacles(frames, len(times), variables, WINDS) if len(times) else None,
        units=(length, unit),
    )  # fmt: skip
