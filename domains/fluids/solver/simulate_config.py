"""Holds the keys of ``scripts/simulate.py domain=fluids``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval, MinLen

from domains.fluids.solver import CASES, Schedule, SolverGrid
from domains.fluids.solver.random_flows import DRAWN_CASES, Spread
from sciml.core.config import divides, one_of
from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, NonNegative, Positive

FORMATS = {".nc": "ensemble", ".hdf5": "well", ".h5": "well", "": "miniweather"}
MAX_WIND = 50.0
ORIGINAL_S = {"collision": 700.0, "thermal": 1000.0, "gravity": 1500.0, "density": 600.0, "injection": 1200.0}
"""Lengths of the original's cases, s."""
COMPILING_PAYS = 4e8
"""Cell-steps of a process; compiling takes half a minute, and a plain core makes a few million a second."""


@dataclass(frozen=True)
class SimulateConfig:
    """Holds the keys of ``scripts/simulate.py domain=fluids``.

    Attributes:
        out: what to make: NAME.nc is one file of all members, NAME.hdf5 the same in The Well's schema, and a name
            without an ending a folder of the original's NetCDF files.
        case: one of the original's five as it is, unshifted: collision, thermal, gravity, density or injection. Its
            time steps and frames are the original's, and what is drawn, ``count`` and ``frames`` do not count.
        sim_time: s, length of each flow; null is that of ``frames``, with ``case`` the original's.
        count: number of members.
        cases: taken in turn: collision, thermal, gravity, density, injection, or mixed (bubbles at any place).
        nx: cells along the 20 km of x.
        nz: cells along the 10 km of z.
        coarsen: cells along each axis that are averaged into one of what is written, so that a fine simulation is
            the truth of a coarser grid; it divides ``nx`` and ``nz``.
        frames: of a member, the start with them.
        interval: s between frames; the time step divides it.
        amplitude: smallest and largest factor of a case's strength.
        radius: smallest and largest factor of its radii.
        displacement: m, largest of each bubble from its place; all together are moved to anywhere along x before.
        wind: m/s, largest that is added.
        seed: of all that is drawn.
        precision: of the simulation and of what is written, float32 or float64.
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
    interval: Positive[float] = 20.0
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

    def __post_init__(self) -> None:
        for case in self.cases:
            one_of(case, DRAWN_CASES, "cases")
        if self.case is not None:
            one_of(self.case, CASES, "case")
        if self.duration < self.interval:
            raise ConfigError(
                f"{self.duration:g} s are shorter than the interval of {self.interval:g} s between frames",
                key="sim_time", hint=f"try sim_time={10 * self.interval:g}, or a shorter interval",
            )  # fmt: skip
        if Path(self.out).suffix not in FORMATS:
            raise ConfigError(f"{self.out} is of no known kind", key="out", hint="end in .nc, .hdf5, or in nothing")
        SolverGrid(self.nx, self.nz)
        for key in ("nx", "nz"):
            divides(self.coarsen, getattr(self, key), key="coarsen", of=key)
        self._check_spread()

    def _check_spread(self) -> None:
        """Refuses flows that would be too fast for the time step."""
        for key, largest in (("amplitude", 1.5), ("radius", 3.0)):
            low, high = getattr(self, key)
            if not 0 < low <= high <= largest:
                raise ConfigError(
                    f"{[low, high]} are no factors", key=key, hint=f"increasing, above 0, at most {largest}"
                )

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
        """Returns the length of each flow, s."""
        if self.sim_time is not None:
            return self.sim_time
        return (self.frames - 1) * self.interval if self.case is None else ORIGINAL_S[self.case]

    @property
    def num_members(self) -> int:
        return self.count if self.case is None else 1

    @property
    def schedule(self) -> Schedule:
        if self.case is not None:
            return Schedule(self.grid.largest_step, self.duration, self.interval)
        frames = int(self.duration / self.interval + 1e-6) + 1
        return Schedule.uniform(self.grid.largest_step, frames, self.interval)

    def steps(self) -> Iterator[tuple[float, float, bool]]:
        """Yields step, time after it, and whether a frame is written then."""
        return self.schedule.exact() if self.case is None else self.schedule.original()

    @cached_property
    def times(self) -> tuple[float, ...]:
        """Returns the times of all frames, s."""
        return (0.0, *(time for _, time, written in self.steps() if written))

    @property
    def spread(self) -> Spread:
        return Spread(self.amplitude, self.radius, self.displacement, self.wind)

    @property
    def compiling_pays(self) -> bool:
        """Says whether each process has enough to do that compiling pays."""
        steps = self.schedule.duration / self.schedule.step
        return self.num_members * self.nx * self.nz * steps / max(1, self.workers) >= COMPILING_PAYS
