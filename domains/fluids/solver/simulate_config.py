"""Holds the keys of ``scripts/simulate.py domain=fluids``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval, MinLen

from domains.fluids.physics import PHYSICS, Plane
from domains.fluids.solver import CASES, Schedule, SolverGrid
from domains.fluids.solver.random_flows import DRAWN_CASES, Spread
from sciml.core.config import divides, one_of
from sciml.core.errors import ConfigError
from sciml.core.sentences import plain
from sciml.core.types import AtLeastOne, NonNegative, Positive

FORMATS = {".nc": "ensemble", ".hdf5": "well", ".h5": "well", "": "miniweather"}
MAX_WIND = 50.0
ORIGINAL_S = {"collision": 700.0, "thermal": 1000.0, "gravity": 1500.0, "density": 600.0, "injection": 1200.0}
"""Lengths of the original's cases, s."""
MINIWEATHER = "miniweather"
INTERVAL_S = 20.0
OF_MINIWEATHER = ("case", "cases", "amplitude", "radius", "displacement", "wind", "compile")
"""Keys that mean nothing to other physics."""
COMPILING_PAYS = 4e8
"""Cell-steps of a process; compiling takes half a minute, and a plain core makes a few million a second."""


@dataclass(frozen=True)
class SimulateConfig:
    """Holds the keys of ``scripts/simulate.py domain=fluids``.

    Attributes:
        out: what to make: NAME.nc is one file of all members, NAME.hdf5 the same in The Well's schema, and a name
            without an ending a folder of the original's NetCDF files.
        physics: miniWeather's dry air, or flows without units on a plane of 2 by 1: shallow water, Burgers' equation,
            a tracer in a steady flow, vortices of an incompressible fluid, gyres of an ocean basin, a cylinder's wake.
        case: one of the original's five as it is, unshifted: collision, thermal, gravity, density or injection. Its
            time steps and frames are the original's, and what is drawn, ``count`` and ``frames`` do not count.
        sim_time: s, length of each flow; null is that of ``frames``, with ``case`` the original's.
        count: number of members.
        cases: taken in turn: collision, thermal, gravity, density, injection, or mixed (bubbles at any place).
        nx: cells along x (20 km).
        nz: cells along z (10 km).
        coarsen: cells along each axis that are averaged into one of what is written, so that a fine simulation is
            the truth of a coarser grid; it divides ``nx`` and ``nz``.
        frames: of a member, the start with them.
        interval: s between frames; the time step divides it. null is 20 s, of other physics 0.1 or 0.2.
        amplitude: smallest and largest factor of a case's strength.
        radius: smallest and largest factor of its radii.
        displacement: m, largest of each bubble from its place; all together are moved to anywhere along x before.
        wind: m/s, largest that is added.
        seed: of all that is drawn.
        precision: of the simulation and of what is written, float32 or float64; other physics than miniWeather's is
            always computed in float64.
        batch: members that are simulated together; a run that was stopped goes on behind the last whole batch.
        workers: processes beside this one; 0 works in this one alone.
        device: auto, cpu or cuda.
        compile: true, false, or null for where it pays: on a CPU always, by its C++ compiler.
        overwrite: replace what is there.
    """

    out: str = "runs/fluids/ensemble.nc"
    count: AtLeastOne = 88
    cases: Annotated[tuple[str, ...], MinLen(1)] = ("collision", "density", "thermal", "mixed")
    nx: int = 128
    nz: int = 64
    coarsen: AtLeastOne = 1
    frames: Annotated[int, Ge(2)] = 31
    interval: Positive[float] | None = None
    amplitude: tuple[float, float] = (0.5, 1.25)
    radius: tuple[float, float] = (0.7, 1.3)
    displacement: NonNegative[float] = 1500.0
    wind: Annotated[float, Interval(ge=0, le=MAX_WIND)] = 5.0
    seed: NonNegative[int] = 0
    precision: Literal["float32", "float64"] = "float32"
    batch: AtLeastOne = 8
    workers: NonNegative[int] = 0
    device: str = "auto"
    compile: bool | None = None
    overwrite: bool = False
    case: str | None = None
    sim_time: Positive[float] | None = None
    physics: Literal[
        "miniweather", "shallow_water", "burgers", "advection", "vortices", "double_gyre", "cylinder_wake"
    ] = "miniweather"

    def __post_init__(self) -> None:
        for case in self.cases:
            one_of(case, DRAWN_CASES, "cases")
        if self.case is not None:
            one_of(self.case, CASES, "case")
        if self.duration < self.frame_interval:
            unit = " s" if self.is_miniweather else ""
            raise ConfigError(
                f"{self.duration:g}{unit} is shorter than the interval of {self.frame_interval:g}{unit} between frames",
                key="sim_time", hint=f"try sim_time={10 * self.frame_interval:g}, or a shorter interval",
            )  # fmt: skip
        if Path(self.out).suffix not in FORMATS:
            raise ConfigError(f"{self.out} is of no known kind", key="out", hint="end in .nc, .hdf5, or in nothing")
        (SolverGrid if self.is_miniweather else Plane)(self.nx, self.nz)
        if not self.is_miniweather:
            self._check_other_physics()
        for key in ("nx", "nz"):
            divides(self.coarsen, getattr(self, key), key="coarsen", of=key)
        self._check_spread()

    def _check_other_physics(self) -> None:
        """Refuses what only miniWeather has."""
        for field in fields(self):
            if field.name in OF_MINIWEATHER and getattr(self, field.name) != field.default:
                hint = f"leave it out, or {field.name}={plain(field.default)}"
                raise ConfigError(f"has no meaning for physics={self.physics}", key=field.name, hint=hint)
        if self.format == "miniweather":
            raise ConfigError(
                f"the original's files hold no {self.physics}", key="out", hint=f"try {self.out}.nc or {self.out}.hdf5"
            )

    def _check_spread(self) -> None:
        """Refuses flows that would be too fast for the time step."""
        for key, largest in (("amplitude", 1.5), ("radius", 3.0)):
            low, high = getattr(self, key)
            if not 0 < low <= high <= largest:
                raise ConfigError(
                    f"{[low, high]} are no factors", key=key, hint=f"increasing, above 0, at most {largest}"
                )

    @property
    def is_miniweather(self) -> bool:
        return self.physics == MINIWEATHER

    @property
    def frame_interval(self) -> float:
        """Returns the time between frames, s of miniWeather."""
        if self.interval is not None:
            return self.interval
        return INTERVAL_S if self.is_miniweather else PHYSICS[self.physics].interval

    @property
    def format(self) -> str:
        """Returns what is written: ``ensemble``, ``well`` or ``miniweather``."""
        return FORMATS[Path(self.out).suffix]

    @property
    def grid(self) -> SolverGrid:
        return SolverGrid(self.nx, self.nz)

    @property
    def written_grid(self) -> SolverGrid:
        return self.grid.coarsened(self.coarsen)

    @property
    def duration(self) -> float:
        """Returns the length of each flow, s of miniWeather."""
        if self.sim_time is not None:
            return self.sim_time
        return (self.frames - 1) * self.frame_interval if self.case is None else ORIGINAL_S[self.case]

    @property
    def num_members(self) -> int:
        return self.count if self.case is None else 1

    @property
    def schedule(self) -> Schedule:
        if self.case is not None:
            return Schedule(self.grid.largest_step, self.duration, self.frame_interval)
        return Schedule.uniform(self.grid.largest_step, self._num_frames, self.frame_interval)

    @property
    def _num_frames(self) -> int:
        return int(self.duration / self.frame_interval + 1e-6) + 1

    def steps(self) -> Iterator[tuple[float, float, bool]]:
        """Yields step, time after it, and whether a frame is written then."""
        return self.schedule.exact() if self.case is None else self.schedule.original()

    @cached_property
    def times(self) -> tuple[float, ...]:
        """Returns the times of all frames, s of miniWeather."""
        if not self.is_miniweather:
            return tuple(number * self.frame_interval for number in range(self._num_frames))
        return (0.0, *(time for _, time, written in self.steps() if written))

    @property
    def spread(self) -> Spread:
        return Spread(self.amplitude, self.radius, self.displacement, self.wind)

    @property
    def compiling_pays(self) -> bool:
        """Says whether each process has enough to do that compiling pays."""
        steps = self.schedule.duration / self.schedule.step
        return self.num_members * self.nx * self.nz * steps / max(1, self.workers) >= COMPILING_PAYS
