"""One trajectory of a flow on a regular grid, whatever file it is in; fields are read when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, Shaped

from domains.fluids.data.boundary import Boundary
from domains.fluids.solver.cases import Flow
from sciml.core.errors import DataError, nearest

SINGLE_PRECISION = 2e-7
"""Largest relative error of a time that a file has in single precision."""
INTERVAL_TOLERANCE = 0.1
"""The original's frames fall on whole time steps, up to a fifteenth of an interval beside a regular clock."""
SPACING_TOLERANCE = 1e-3


class Frames(Protocol):
    """Reads fields of one format; an instance goes to worker processes, so it holds names and no open file."""

    def read(self, times: slice, variables: Sequence[str]) -> Float[np.ndarray, "time variable z x"]:
        """Reads values as they are; what is missing is not a number."""
        ...


@dataclass(frozen=True)
class Axis:
    """Describes equal cells along an axis of space.

    Attributes:
        first: coordinate of the lowest cell.
        step: distance of neighbors, m or whatever the file measures in.
        size: number of cells.
        descends: whether files begin at the highest, as images do.
    """

    first: float
    step: float
    size: int
    descends: bool = False

    @classmethod
    def of(cls, coordinate: Float[np.ndarray, "cell"], what: str) -> Axis:
        """Reads the coordinate of each cell.

        Raises:
            DataError: the cells are not equal.
        """
        coordinate = np.asarray(coordinate, dtype=np.float64)
        steps = np.diff(coordinate)
        if len(steps) == 0 or not np.abs(steps - steps.mean()).max() <= SPACING_TOLERANCE * abs(steps.mean()):
            raise DataError(f"{what} is no regular grid; interpolate the flow to cells of equal size first")
        step = float(steps.mean())
        return cls(float(coordinate.min()), abs(step), len(coordinate), step < 0)

    @classmethod
    def from_zero(cls, step: float, size: int) -> Axis:
        """Returns cells the first of which begins at zero."""
        return cls(step / 2, step, size)


@dataclass(frozen=True)
class FlowSource:
    """Describes a trajectory before any of its fields is read. Rows go up and columns to the right, however files have
    them.

    Attributes:
        name: the file, and which member of it.
        variables: names, in order.
        winds: which of them are the velocity along x and along z.
        times: increasing; s, or whatever the file counts in.
        x: cells along x.
        z: cells along z (or y).
        boundary: what is at the sides.
        frames: reads fields, in the order of the file.
        mask: where an obstacle is and no fluid.
        profiles: ``hy_dens`` and ``hy_theta`` where the file tells its background, (z).
        constants: fields that do not change in time, and numbers of the flow as such fields, by name, (z, x).
        units: of length and time; empty where the file does not tell, or has none.
        flow: what was simulated, where the file tells; its jet and its forcing stay in their places.
    """

    name: str
    variables: tuple[str, ...]
    winds: tuple[str, str] | None
    times: Float[np.ndarray, "time"]
    x: Axis
    z: Axis
    boundary: Boundary
    frames: Frames
    mask: Bool[np.ndarray, "z x"] | None = None
    profiles: Mapping[str, np.ndarray] = field(default_factory=dict)
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    units: tuple[str, str] = ("", "")
    flow: Flow | None = None

    def __post_init__(self) -> None:
        if min(self.shape) < 2:
            raise DataError(
                f"{self.name}: has {self.x.size} x {self.z.size} cells; 2 or more along each axis are needed"
            )
        self._turn_up()
        if len(self.times) == 0:
            raise DataError(f"{self.name}: there is no frame in it")
        steps = np.diff(self.times)
        if not (np.isfinite(self.times).all() and (steps > 0).all()):
            bad = int(np.argmax(~(steps > 0))) + 1 if len(steps) else 0
            raise DataError(f"{self.name}: times do not increase at frame {bad} ({self.times[bad]:g})")
        for name, values in self.constants.items():
            if not np.isfinite(values if self.mask is None else values[~self.mask]).all():
                raise DataError(f"{self.name}: {name} is not a finite number everywhere")

    def _turn_up(self) -> None:
        """Turns what files hold beside the frames the way that rows and columns go."""
        if self.mask is not None:
            object.__setattr__(self, "mask", self._turned(self.mask))
        constants = {name: self._turned(values) for name, values in self.constants.items()}
        object.__setattr__(self, "constants", constants)
        if self.z.descends:
            object.__setattr__(self, "profiles", {name: values[::-1].copy() for name, values in self.profiles.items()})

    def _turned(self, values: Shaped[np.ndarray, "*batch z x"]) -> Shaped[np.ndarray, "*batch z x"]:
        rows, columns = (slice(None, None, -1 if axis.descends else 1) for axis in (self.z, self.x))
        return np.ascontiguousarray(values[..., rows, columns])

    def __len__(self) -> int:
        return len(self.times)

    @property
    def shape(self) -> tuple[int, int]:
        """Returns the numbers of cells along z and x."""
        return self.z.size, self.x.size

    @property
    def dx(self) -> float:
        """Returns the distance of neighbors along x."""
        return self.x.step

    @property
    def dz(self) -> float:
        """Returns the distance of neighbors along z."""
        return self.z.step

    @property
    def interval(self) -> float:
        """Returns the time between frames, in the mean: frames may fall on whole steps of a solver beside a clock.

        Raises:
            DataError: it is not the same everywhere.
        """
        steps = np.diff(self.times)
        if len(steps) == 0:
            raise DataError(f"{self.name}: one frame has no interval; at least 2 are needed")
        usual = float(np.median(steps))
        wrong = np.abs(steps - usual) > INTERVAL_TOLERANCE * usual
        if wrong.any():
            bad = int(np.argmax(wrong))
            raise DataError(
                f"{self.name}: times are not uniform, frames {bad} and {bad + 1} are {steps[bad]:g} apart and most are "
                f"{usual:g}; write frames at equal intervals"
            )
        mean = float(self.times[-1] - self.times[0]) / len(steps)
        plain = float(f"{mean:.6g}")
        # 0.1 in single precision is 0.1000000015, and data sets must agree on what is 0.2 ahead
        return plain if abs(plain - mean) <= SINGLE_PRECISION * mean else mean

    @property
    def odd(self) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """Says which variables change their sign in a wall, as :func:`domains.fluids.data.boundary.pad` wants it."""
        across = self.winds or (None, None)
        return tuple(name == across[0] for name in self.variables), tuple(name == across[1] for name in self.variables)

    def read(
        self, times: slice = slice(None), variables: Sequence[str] | None = None
    ) -> Float[np.ndarray, "time variable z x"]:
        """Reads fields in float32, zero in obstacles; only what is asked for is read.

        Raises:
            DataError: an unknown variable, or a value in the fluid that is not a finite number.
        """
        names = self.variables if variables is None else tuple(variables)
        for name in names:
            if name not in self.variables:
                raise DataError(f"{self.name}: no variable {name}; {nearest(name, self.variables)}")
        values = np.array(self._turned(self.frames.read(times, names)), dtype=np.float32)
        if self.mask is not None:
            values[..., self.mask] = 0
        finite = np.isfinite(values)
        if not finite.all():
            frame, variable, z, x = np.argwhere(~finite)[0]
            time = self.times[times][frame]
            raise DataError(f"{self.name}: {names[variable]} is not a finite number at time {time:g}, cell z={z} x={x}")
        return values
