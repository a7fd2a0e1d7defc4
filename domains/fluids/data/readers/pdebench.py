"""PDEBench's HDF5, its two layouts of flows in a plane.

Takamoto et al. (2022), doi:10.48550/arXiv.2210.07182. Either a data set for each variable, on (sample, t, x, y), or a
group for each sample with ``data`` on (t, x, y, variable).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.hdf5 import opened
from domains.fluids.data.readers.source import FlowSource, spacing
from sciml.core.errors import DataError

WINDS = ("Vx", "Vy")
VARIABLES = ("density", *WINDS, "pressure")
COORDINATES = ("t-coordinate", "x-coordinate", "y-coordinate")
PERIODIC = Boundary.of("periodic", "periodic")
"""The boundary of compressible flows, which are written by variable; the files do not name it."""
OPEN = Boundary.of("open", "open")
"""The boundary of dam breaks and reactions, which are written by sample: no flux through the sides."""


@dataclass(frozen=True)
class PDEBenchFrames:
    """Reads one sample of a file.

    Attributes:
        sample: its number, or the name of its group.
        variables: of the last axis of ``data``.
    """

    file: str
    sample: int | str
    variables: tuple[str, ...]

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        file = opened(self.file)
        try:
            if isinstance(self.sample, int):
                fields = [np.asarray(file[name][self.sample, times]) for name in variables]
            else:
                values = np.asarray(file[self.sample]["data"][times])
                fields = [values[..., self.variables.index(name)] for name in variables]
        except OSError as error:
            raise DataError(f"{self.file}: sample {self.sample} cannot be read, it is damaged ({error})") from error
        return np.stack(fields, axis=1).swapaxes(-1, -2)  # x comes first there


def open_pdebench(name: str, boundary: Boundary | None) -> Iterator[FlowSource]:
    """Opens one flow a sample; y is our z.

    Raises:
        DataError: neither of the layouts, a variable that is missing, or another number of dimensions.
    """
    file = opened(name)
    if any(variable in file for variable in VARIABLES):
        yield from _by_variable(file, name, boundary or PERIODIC)
        return
    samples = sorted(key for key, group in file.items() if hasattr(group, "keys") and "data" in group)
    if not samples:
        found = ", ".join(file) or "nothing"
        raise DataError(f"{name}: neither The Well's nor PDEBench's layout of a flow; found {found}")
    yield from _by_sample(file, name, samples, boundary or OPEN)


def _by_variable(file: Any, name: str, boundary: Boundary) -> Iterator[FlowSource]:
    for wanted in (*VARIABLES, *COORDINATES):
        if wanted not in file:
            raise DataError(f"{name}: no variable {wanted}; found {', '.join(file)}")
    shape = file[VARIABLES[0]].shape
    if len(shape) != 4:
        raise DataError(f"{name}: {VARIABLES[0]} has {len(shape)} dimensions; (sample, t, x, y) are needed")
    # times there are one more: those of edges
    times, x, y = (np.asarray(file[key], dtype=np.float64) for key in COORDINATES)
    dx, dz = spacing(x, f"{name}: x"), spacing(y, f"{name}: y")
    for sample in range(shape[0]):
        frames = PDEBenchFrames(name, sample, VARIABLES)
        yield FlowSource(
            f"{name}@{sample}", VARIABLES, WINDS, times[: shape[1]], dx, dz, (len(y), len(x)), boundary, frames
        )


def _by_sample(file: Any, name: str, samples: Sequence[str], boundary: Boundary) -> Iterator[FlowSource]:
    for sample in samples:
        shape, grid = file[sample]["data"].shape, file[sample]["grid"]
        if len(shape) != 4:
            raise DataError(f"{name}@{sample}: data has {len(shape)} dimensions; (t, x, y, variable) are needed")
        times, x, y = (np.asarray(grid[key], dtype=np.float64) for key in "txy")
        variables = tuple(f"v{number}" for number in range(shape[3]))
        yield FlowSource(
            f"{name}@{sample}", variables, None, times, spacing(x, f"{name}: x"), spacing(y, f"{name}: y"),
            (len(y), len(x)), boundary, PDEBenchFrames(name, sample, variables),
        )  # fmt: skip
