"""Holds the keys that users may set about the flows that a model learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from domains.fluids.data.boundary import Boundary
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.core.errors import ConfigError
from sciml.core.types import FilePath, NonNegative

MAIN = "flow"
"""Name of a data set that was given none."""

Paths = FilePath | list[FilePath] | dict[str, FilePath | list[FilePath]]


@dataclass(frozen=True)
class FlowSplits:
    """Says how many trajectories each split gets: numbers, or shares; their proportion counts.

    A single trajectory is cut along time instead.
    """

    train: NonNegative[float] = 0.75
    valid: NonNegative[float] = 0.1
    test: NonNegative[float] = 0.15

    def __post_init__(self) -> None:
        if not self.train + self.valid + self.test > 0:
            raise ConfigError("must not all be 0", key="data.splits", hint="try data.splits.train=1")

    @property
    def shares(self) -> tuple[float, float, float]:
        total = self.train + self.valid + self.test
        return self.train / total, self.valid / total, self.test / total


@dataclass(frozen=True)
class FluidsDataConfig:
    """Holds the ``data`` keys of a run on flows.

    Attributes:
        path: what :mod:`domains.fluids.data.readers` reads: a file, a folder, a pattern, several of them; or data
            sets by name, each of them such. Data sets may differ in grid, variables, interval and boundary. None:
            flows are simulated as ``simulate`` says, once, into the cache.
        simulate: as ``scripts/simulate.py domain=fluids`` takes it, without ``out``.
        cache: where simulated flows are kept.
        boundary: sides as in :meth:`Boundary.of`, e.g. ``{x: periodic, z: wall}``, where files do not tell or are
            wrong; of all data sets.
        variables: those to use; None takes all.
        splits: how trajectories are shared out.
        augment: ``roll`` moves each sample along a periodic x by a random distance, ``roll_mirror`` also mirrors x;
            flows that are not periodic stay as they are, and those on a plane that turns are not mirrored. ``auto``
            does both where the files say that they are of miniWeather, whose flows are as likely one way as the other,
            and nothing elsewhere.
        title: what the data are; shown on pictures.
        preload_gb: data sets up to this size are kept in memory, larger ones read as they are needed.
    """

    practical: ClassVar[tuple[str, ...]] = ("path", "cache", "preload_gb")

    path: Paths | None = None
    simulate: SimulateConfig = field(default_factory=SimulateConfig)
    cache: FilePath = "data/cache"
    boundary: dict[str, str | list[str]] | None = None
    variables: list[str] | None = None
    splits: FlowSplits = field(default_factory=FlowSplits)
    augment: Literal["auto", "none", "roll", "roll_mirror"] = "auto"
    title: str = ""
    preload_gb: NonNegative[float] = 2.0

    def __post_init__(self) -> None:
        if self.path is not None and not self.path:
            raise ConfigError("no data are named", key="data.path", hint="e.g. data.path=output.nc; null simulates")
        if self.boundary is not None:
            if set(self.boundary) != {"x", "z"}:
                raise ConfigError("x and z are needed", key="data.boundary", hint="{x: periodic, z: wall}")
            try:
                Boundary.of(**self.boundary)
            except ConfigError as error:
                raise ConfigError(error.message, key=f"data.{error.key}", hint=error.hint) from None

    @property
    def sides(self) -> Boundary | None:
        """Returns the boundary condition that the user knows better."""
        return Boundary.of(**self.boundary) if self.boundary is not None else None

    @property
    def paths(self) -> Mapping[str, str | Sequence[str]]:
        """Returns data sets by name."""
        assert self.path is not None
        return self.path if isinstance(self.path, dict) else {MAIN: self.path}
