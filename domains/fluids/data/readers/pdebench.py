"""PDEBench's HDF5, its three layouts of flows in a plane.

Takamoto et al. (2022), doi:10.48550/arXiv.2210.07182. Compressible flows have a data set for each variable, on (sample,
t, x, y); dam breaks and reactions a group for each sample with ``data`` on (t, x, y, variable); incompressible flows
``velocity`` and ``particles`` on (sample, t, x, y, component), ``force`` on (sample, x, y, component), and ``t``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.hdf5 import laid_out_as, opened
from domains.fluids.data.readers.source import Axis, FlowSource
from sciml.core.errors import DataError

WINDS = ("Vx", "Vy")
VARIABLES = ("density", *WINDS, "pressure")
COORDINATES = ("t-coordinate", "x-coordinate", "y-coordinate")
PERIODIC = Boundary.of("periodic", "periodic")
"""The boundary of compressible flows, which are written by variable; the files do not name it."""
OPEN = Boundary.of("open", "open")
"""The boundary of dam breaks and reactions, which are written by sample: no flux through the sides."""
WALLS = Boundary.of("wall", "wall")
"""The boundary of incompressible flows: nothing moves at the sides of the unit square."""
VELOCITY, PARTICLES, FORCE = "velocity", "particles", "force"


@dataclass(frozen=True)
class IncompressibleFrames:
    """Reads one sample of an incompressible flow."""

    file: str
    sample: int

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        file = opened(self.file)
        names = {PARTICLES: (PARTICLES, 0), WINDS[0]: (VELOCITY, 0), WINDS[1]: (VELOCITY, 1)}
        try:
            fields = [np.asarray(file[key][self.sample, times, ..., part]) for key, part in map(names.get, variables)]  # type: ignore[misc]
        except OSError as error:
            raise DataError(f"{self.file}: sample {self.sample} cannot be read, it is damaged ({error})") from error
        return np.stack(fields, axis=1).swapaxes(-1, -2)


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


@laid_out_as("PDEBench's files")
def open_pdebench(name: str, boundary: Boundary | None) -> Iterator[FlowSource]:
    """Opens one flow a sample; y is our z.

    Raises:
        DataError: none of the layouts, a variable that is missing, or another number of dimensions.
    """
    file = opened(name)
    if VELOCITY in file:
        yield from _incompressible(file, name, boundary or WALLS)
        return
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
    axes = Axis.of(x, f"{name}: x"), Axis.of(y, f"{name}: y")
    for sample in range(shape[0]):
        frames = PDEBenchFrames(name, sample, VARIABLES)
        yield FlowSource(f"{name}@{sample}", VARIABLES, WINDS, times[: shape[1]], *axes, boundary, frames)


def _incompressible(file: Any, name: str, boundary: Boundary) -> Iterator[FlowSource]:
    shape = file[VELOCITY].shape
    if len(shape) != 5 or shape[4] != 2:
        raise DataError(f"{name}: velocity has the shape {shape}; (sample, t, x, y, 2) is needed")
    variables: tuple[str, ...] = WINDS
    if PARTICLES in file:
        if file[PARTICLES].shape != (*shape[:4], 1):
            raise DataError(f"{name}: particles has the shape {file[PARTICLES].shape}; {(*shape[:4], 1)} is needed")
        variables = (PARTICLES, *WINDS)
    if "t" not in file:
        raise DataError(f"{name}: no times (t); found {', '.join(file)}")
    times = np.asarray(file["t"], dtype=np.float64)
    if times.shape not in ((shape[1],), shape[:2]):
        raise DataError(f"{name}: t has the shape {times.shape}; {shape[:2]} is needed")
    _, _, nx, ny, _ = shape
    for sample in range(shape[0]):
        constants = {}
        if FORCE in file:
            force = np.asarray(file[FORCE][sample], dtype=np.float32)
            if force.shape != (nx, ny, 2):
                raise DataError(f"{name}: force has the shape {file[FORCE].shape}; {(shape[0], nx, ny, 2)} is needed")
            constants = {f"{FORCE}_{axis}": force[..., part].T for part, axis in enumerate("xy")}
        yield FlowSource(
            f"{name}@{sample}", variables, WINDS, times[sample] if times.ndim == 2 else times,
            Axis.from_zero(1 / nx, nx), Axis.from_zero(1 / ny, ny), boundary,
            IncompressibleFrames(name, sample), constants=constants,
        )  # fmt: skip


def _by_sample(file: Any, name: str, samples: Sequence[str], boundary: Boundary) -> Iterator[FlowSource]:
    for sample in samples:
        shape, grid = file[sample]["data"].shape, file[sample]["grid"]
        if len(shape) != 4:
            raise DataError(f"{name}@{sample}: data has {len(shape)} dimensions; (t, x, y, variable) are needed")
        times, x, y = (np.asarray(grid[key], dtype=np.float64) for key in "txy")
        variables = tuple(f"v{number}" for number in range(shape[3]))
        yield FlowSource(
            f"{name}@{sample}", variables, None, times, Axis.of(x, f"{name}: x"), Axis.of(y, f"{name}: y"),
            boundary, PDEBenchFrames(name, sample, variables),
        )  # fmt: skip
