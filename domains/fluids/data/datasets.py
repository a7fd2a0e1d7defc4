"""The flows of a run, opened: data sets of trajectories, simulated first where none are given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from domains.fluids.data.boundary import OBSTACLE
from domains.fluids.data.data_config import MAIN, FluidsDataConfig
from domains.fluids.data.readers import FlowSource, open_sources
from domains.fluids.data.schema import BACKGROUND, DataSet, FluidsSchema, canonical
from domains.fluids.physics import PHYSICS
from domains.fluids.solver.background import SURFACE_THETA
from domains.fluids.solver.simulate import simulate
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.core.errors import ConfigError, DataError, nearest
from sciml.core.seeding import seed_of
from sciml.nn.topology import Side

SPLITS = ("train", "valid", "test")
STEADY = 0.02
"""Largest change of a mean over the root mean square of the change that counts as none: solvers lose a little."""
MASS = ("dens", "density", "height")
"""Names of what flows between closed sides keep, as far as nothing is blown in."""
MAX_SPREAD_K = 1e-3
"""Largest difference of two profiles of potential temperature that count as the same."""


@dataclass(frozen=True)
class Trajectory:
    """Selects successive frames of one source.

    Attributes:
        frames: their numbers in the source, first and behind the last.
    """

    source: FlowSource
    frames: tuple[int, int]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return self.frames[1] - self.frames[0]

    def read(self, first: int, last: int, stride: int = 1) -> Float[np.ndarray, "time variable z x"]:
        """Returns the frames from ``first`` up to ``last``, counted within the trajectory."""
        offset = self.frames[0]
        return self.source.read(slice(offset + first, offset + last, stride), self.names)

    @cached_property
    def is_steady(self) -> Bool[np.ndarray, "variable"]:
        """Says of which variables the mean over the plane stays, from the first to the last frame.

        A jet brings mass whatever the sides are; of a single frame nothing more is known than that.
        """
        first, last = (self.read(at, at + 1)[0].astype(np.float64) for at in (0, len(self) - 1))
        fluid = slice(None) if self.source.mask is None else ~self.source.mask
        change = (last - first)[:, fluid].reshape(len(self.names), -1)
        steady: np.ndarray = np.abs(change.mean(1)) <= STEADY * np.sqrt(np.square(change).mean(1))
        return steady & (self.source.flow is None or self.source.flow.jet is None)

    @property
    def is_fixed(self) -> bool:
        """Says whether something in the flow has its place, so that moved copies of it would be other flows."""
        if self.source.flow is not None:
            return self.source.flow.is_fixed
        known = canonical(self.names, self.source.winds)
        closed = not any(
            side is Side.OPEN for sides in (self.source.boundary.x, self.source.boundary.z) for side in sides
        )
        grows = [name in MASS and not steady for name, steady in zip(known, self.is_steady, strict=True)]
        return (closed and any(grows)) or any(
            bool(np.ptp(values, axis=-1).any()) for values in self.source.constants.values()
        )

    @property
    def constants(self) -> Float[np.ndarray, "constant z x"] | None:
        """Returns the fields that do not change in time, where the file has any."""
        known = self.source.constants
        return np.stack(list(known.values())) if known else None

    @property
    def profiles(self) -> Float[np.ndarray, "2 z"] | None:
        """Returns density and potential temperature of the air at rest, where the file has them."""
        known = self.source.profiles
        return np.stack([known["hy_dens"], known["hy_theta"]]) if known else None


@dataclass(frozen=True)
class Flows:
    """Holds a data set with its trajectories, split by split."""

    data_set: DataSet
    trajectories: Mapping[str, Sequence[Trajectory]]


def open_flows(
    config: FluidsDataConfig, trained: Mapping[str, DataSet] | None = None
) -> tuple[FluidsSchema, dict[str, Flows]]:
    """Opens all data sets; no field is read.

    Args:
        trained: data sets of a trained model. Their interval is taken for flows of one frame, which are refused
            without; and what they knew of obstacles and of the air at rest is told of flows that have none, or air
            that is the same everywhere.

    Raises:
        ConfigError: variables that the data do not have, or too few trajectories for the splits.
        DataError: missing, damaged or uneven data.
    """
    paths = config.paths if config.path is not None else {MAIN: str(simulated(config.simulate, config.cache))}
    return describe_flows(config, {name: open_sources(path, config.sides) for name, path in paths.items()}, trained)


def describe_flows(
    config: FluidsDataConfig,
    sources_by_name: Mapping[str, Sequence[FlowSource]],
    trained: Mapping[str, DataSet] | None = None,
) -> tuple[FluidsSchema, dict[str, Flows]]:
    """Describes data sets that are open, see :func:`open_flows`."""
    flows = {}
    for name, sources in sources_by_name.items():
        known = trained.get(name) if trained else None
        data_set, names = _describe(sources, config.variables, known)
        ordered = [
            replace(source, constants={name: source.constants[name] for name in data_set.other_constants})
            for source in sources
        ]
        flows[name] = Flows(data_set, _split(ordered, names, config.splits.shares))
    title = config.title or (_title(config.simulate) if config.path is None else "")
    return FluidsSchema({name: found.data_set for name, found in flows.items()}, title), flows


def _title(config: SimulateConfig) -> str:
    if config.is_miniweather:
        return "simulated flows (miniWeather's equations)"
    return PHYSICS[config.physics].title


def simulated(config: SimulateConfig, cache: str | Path) -> Path:
    """Returns the ensemble of a configuration, simulated now or by an earlier run."""
    text = json.dumps({**asdict(config), "out": None}, sort_keys=True)
    out = Path(cache) / f"flows-{hashlib.sha256(text.encode()).hexdigest()[:12]}.nc"
    if not out.exists():
        simulate(replace(config, out=str(out)), keep_existing=True)
    return out


def _describe(
    sources: Sequence[FlowSource], wanted: Sequence[str] | None, trained: DataSet | None
) -> tuple[DataSet, tuple[str, ...]]:
    """Returns what all sources of a data set have in common, and the names of its variables in the files."""
    first = sources[0]
    if trained is not None and all(len(source) == 1 for source in sources):
        intervals = [trained.interval] * len(sources)
    else:
        intervals = [source.interval for source in sources]
    for source, interval in zip(sources, intervals, strict=True):
        if abs(interval - intervals[0]) > 1e-3 * intervals[0]:
            every = [f"{one:g} {unit.units[1]}".rstrip() for one, unit in ((intervals[0], first), (interval, source))]
            raise DataError(
                f"{first.name} has a frame every {every[0]} and {source.name} every {every[1]}; name them as two data "
                "sets, data.path={one: ..., other: ...}"
            )
    names = first.variables
    known = canonical(names, first.winds)
    if wanted is not None:
        for name in wanted:
            if name not in known and name not in names:
                raise ConfigError(
                    f"{first.name} has no variable {name!r}", key="data.variables", hint=nearest(name, known)
                )
        chosen = [n for n, (a, b) in enumerate(zip(names, known, strict=True)) if a in wanted or b in wanted]
        names, known = (tuple(group[n] for n in chosen) for group in (names, known))
    if trained is not None:
        place = _place_among(trained.variables)
        order = sorted(range(len(known)), key=lambda n: place(known[n]))
        names, known = (tuple(group[n] for n in order) for group in (names, known))
    constants = _constants(sources, () if trained is None else trained.constants)
    data_set = DataSet(
        known, constants, first.shape, first.dx, first.dz, intervals[0], first.boundary.names,
        _have_profiles(sources), first.units, (first.z.first, first.x.first),
    )  # fmt: skip
    return data_set, names


def _constants(sources: Sequence[FlowSource], told: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of what all sources have that does not change in time.

    Args:
        told: what a trained model knows, in its order.
    """
    first = sources[0]
    for source in sources:
        if set(source.constants) != set(first.constants):
            raise DataError(
                f"{first.name} has the constants {', '.join(first.constants) or 'none'} and {source.name} "
                f"{', '.join(source.constants) or 'none'}; name them as two data sets, "
                "data.path={one: ..., other: ...}"
            )
    found = [OBSTACLE] * (OBSTACLE in told or any(source.mask is not None for source in sources))
    if _stratified(sources) or (BACKGROUND in told and _have_profiles(sources)):
        found.append(BACKGROUND)
    return tuple(sorted([*found, *first.constants], key=_place_among(told)))


def _have_profiles(sources: Sequence[FlowSource]) -> bool:
    return all(source.profiles for source in sources)


def _place_among(known: Sequence[str]) -> Callable[[str], int]:
    """Returns what sorts names as a model knows them, and others behind."""
    places = {name: place for place, name in enumerate(known)}
    return lambda name: places.get(name, len(places))


def _stratified(sources: Sequence[FlowSource]) -> bool:
    """Says whether the air at rest is not neutral everywhere, so that a model must know its profile."""
    profiles = [source.profiles["hy_theta"] for source in sources if "hy_theta" in source.profiles]
    return len(profiles) == len(sources) and any(
        np.abs(profile - SURFACE_THETA).max() > MAX_SPREAD_K for profile in profiles
    )


def _split(
    sources: Sequence[FlowSource], names: tuple[str, ...], shares: Sequence[float]
) -> dict[str, list[Trajectory]]:
    if len(sources) == 1:
        return _split_along_time(sources[0], names, shares)
    order = np.random.default_rng(seed_of(0, "splits", len(sources))).permutation(len(sources))
    bounds = [0, *np.cumsum(_counts(len(sources), shares))]
    found = {}
    for name, first, last in zip(SPLITS, bounds, bounds[1:], strict=False):
        chosen = [sources[number] for number in sorted(order[first:last])]
        found[name] = [Trajectory(source, (0, len(source)), names) for source in chosen]
    return found


def _counts(total: int, shares: Sequence[float]) -> list[int]:
    """Counts the flows of each split: its share, at least one where it has any, the first of them what is left."""
    counts = [max(1, round(total * share)) if share else 0 for share in shares]
    first = int(np.argmax(np.array(shares) > 0))
    counts[first] += total - sum(counts)
    if counts[first] < 1:
        raise ConfigError(
            f"{total} flows are too few for {sum(map(bool, shares))} splits", key="data.splits",
            hint="give more flows, or set a share to 0",
        )  # fmt: skip
    return counts


def _split_along_time(
    source: FlowSource, names: tuple[str, ...], shares: Sequence[float]
) -> dict[str, list[Trajectory]]:
    bounds = [0, *(round(len(source) * end) for end in np.cumsum(shares))]
    parts = zip(SPLITS, bounds, bounds[1:], strict=False)
    return {name: [Trajectory(source, (a, b), names)] * (b > a) for name, a, b in parts}
