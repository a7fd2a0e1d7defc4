"""Describes what a flow model is built from, and what its states and increments are normalized with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from domains.fluids.amr.indicator_inputs import WINDS
from domains.fluids.data.boundary import OBSTACLE, Boundary
from domains.fluids.data.writers.ensemble import UNITS
from sciml.core.config import build
from sciml.core.duration import format_hours

BACKGROUND = "background_theta"
"""Constant inputs: where there is no fluid, and the stratification of the air at rest."""


@dataclass(frozen=True)
class DataSet:
    """Describes flows of one kind: the same variables on the same grid.

    Attributes:
        variables: names; winds are ``uwnd`` and ``wwnd`` wherever they come from.
        constants: names of constant inputs: ``OBSTACLE``, ``BACKGROUND``, and what else files have that does not change
            in time.
        shape: cells along z and x.
        dx, dz: spacing of cells, m or whatever the data measure in.
        interval: between frames, s or whatever the data count in.
        sides: names of the boundary condition, see :meth:`Boundary.of`.
        has_profiles: whether the air at rest is known.
        units: of length and time; empty where they are not known, or are none.
        first: coordinates of the lowest cell along z and x; None where the first cells begin at zero.
    """

    variables: tuple[str, ...]
    constants: tuple[str, ...]
    shape: tuple[int, int]
    dx: float
    dz: float
    interval: float
    sides: Mapping[str, tuple[str, str]]
    has_profiles: bool = False
    units: tuple[str, str] = ("m", "s")
    first: tuple[float, float] | None = None

    @property
    def lowest(self) -> tuple[float, float]:
        """Returns the coordinates of the lowest cell along z and x."""
        return (self.dz / 2, self.dx / 2) if self.first is None else self.first

    def unit(self, variable: str) -> str:
        """Returns the unit of a variable; empty where it is not known, as in flows that are not in m and s."""
        return UNITS.get(variable, "") if self.units == ("m", "s") else ""

    @property
    def other_constants(self) -> tuple[str, ...]:
        """Lists the constants that files have as fields or numbers of their own."""
        return tuple(name for name in self.constants if name not in (OBSTACLE, BACKGROUND))

    @cached_property
    def boundary(self) -> Boundary:
        return Boundary.of(**self.sides)

    @property
    def extents(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Returns the length of the domain along z and x in the unit of the data, if values are those of cells, and if
        they are those of points of which the outermost lie on the edges.
        """
        (rows, columns), (dz, dx) = self.shape, (self.dz, self.dx)
        return (rows * dz, (rows - 1) * dz), (columns * dx, (columns - 1) * dx)

    def time_text(self, hours: float) -> str:
        """Returns a time as pictures write it: ``200 s``, or ``t = 2.5`` where time has no unit that is known."""
        return format_hours(hours) if self.units[1] == "s" else f"t = {3600 * hours:g} {self.units[1]}".rstrip()

    @property
    def has_totals(self) -> bool:
        """Says whether mass and energy can be computed: the variables are miniWeather's."""
        return set(UNITS) <= set(self.variables)


@dataclass(frozen=True)
class FluidsSchema:
    """Describes data sets by name.

    Attributes:
        title: what the data are; shown on pictures.
    """

    data_sets: Mapping[str, DataSet]
    title: str = ""

    @property
    def variables(self) -> tuple[str, ...]:
        """Lists the variables of all data sets."""
        return tuple(dict.fromkeys(name for data_set in self.data_sets.values() for name in data_set.variables))

    @property
    def channels(self) -> tuple[str, ...]:
        """Lists all variables and constants of all data sets: what a model is built for."""
        constants = [name for data_set in self.data_sets.values() for name in data_set.constants]
        return tuple(dict.fromkeys([*self.variables, *constants]))

    def score_name(self, data_set: str, variable: str) -> str:
        """Returns a variable's name in scores: with its data set where there are several."""
        return variable if len(self.data_sets) == 1 else f"{data_set}.{variable}"

    def time_text(self, hours: float) -> str:
        """Returns a time as pictures of all data sets together write it: without a unit where theirs differ."""
        texts = {data_set.time_text(hours) for data_set in self.data_sets.values()}
        return texts.pop() if len(texts) == 1 else f"t = {3600 * hours:g}" if texts else format_hours(hours)

    @property
    def time_unit(self) -> tuple[str, float] | None:
        """Returns the unit of lead times and how many of it an hour of the suite is; None for seconds and hours."""
        units = {data_set.units[1] for data_set in self.data_sets.values()}
        if units <= {"s"}:
            return None
        return (units.pop() if len(units) == 1 else "") or "in units of the data", 3600.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FluidsSchema:
        return build(cls, values, prefix="schema")


@dataclass(frozen=True)
class Scale:
    """Holds what one data set is normalized with.

    Attributes:
        mean, std: of each variable. A wind's mean counts as zero, so that a wall turns its sign exactly.
        seconds: of the steps for which increments were measured.
        increment_std: of each variable over each step; zero of one that never changes.
        cells: of the grid along z and x.
        constant_mean, constant_std: of the constants that files have as fields or numbers of their own.
        propagator: matrices of a step that was fitted, see :mod:`domains.fluids.propagator`, in half precision; empty
            without one.
        propagator_gain: share of its changes that it makes, of each variable.
        propagator_seconds: of that step.
        left_by_propagator: of each step that was measured, the root mean square that it leaves of each variable, over
            that of increments.
    """

    mean: Float[Tensor, "variable"]
    std: Float[Tensor, "variable"]
    seconds: Float[Tensor, "step"]
    increment_std: Float[Tensor, "step variable"]
    cells: Int[Tensor, "2"]
    constant_mean: Float[Tensor, "constant"] = field(default_factory=lambda: torch.zeros(0))
    constant_std: Float[Tensor, "constant"] = field(default_factory=lambda: torch.ones(0))
    propagator: Float[Tensor, "..."] = field(default_factory=lambda: torch.zeros(0))
    propagator_gain: Float[Tensor, "..."] = field(default_factory=lambda: torch.zeros(0))
    propagator_seconds: Float[Tensor, ""] = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    left_by_propagator: Float[Tensor, "..."] = field(default_factory=lambda: torch.zeros(0))

    def increments_over(self, seconds: Float[Tensor, "batch"]) -> Float[Tensor, "batch variable 1 1"]:
        """Returns standard deviations of increments over some steps, those of the nearest step that was measured; one
        where nothing changes.
        """
        found = self.increment_std[self._nearest(seconds)]
        return torch.where(found > 0, found, 1.0)[..., None, None]

    @property
    def changes(self) -> Bool[Tensor, "variable 1 1"]:
        """Says which variables change in time."""
        return (self.increment_std > 0).any(0)[:, None, None]

    def left_over(self, seconds: Float[Tensor, "batch"]) -> Float[Tensor, "batch variable 1 1"]:
        """Returns what the propagator leaves of some steps, over their increments; one without a propagator."""
        if not self.left_by_propagator.numel():
            return torch.ones(len(seconds), len(self.std), 1, 1, device=self.std.device)
        return self.left_by_propagator[self._nearest(seconds)][..., None, None]

    def _nearest(self, seconds: Float[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        """Returns the numbers of the steps that were measured and come nearest to some."""
        return (seconds[:, None].to(self.seconds) - self.seconds).abs().argmin(dim=1)

    def to(self, device: torch.device | str) -> Scale:
        return Scale(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class FluidsStatistics:
    """Holds the scales of the data sets, from their training parts."""

    scales: Mapping[str, Scale]

    def to(self, device: torch.device | str) -> FluidsStatistics:
        return FluidsStatistics({name: scale.to(device) for name, scale in self.scales.items()})

    def to_tensors(self) -> dict[str, Tensor]:
        return {f"{name}.{key}": value for name, scale in self.scales.items() for key, value in vars(scale).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FluidsStatistics:
        scales: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            data_set, _, key = name.rpartition(".")
            scales.setdefault(data_set, {})[key] = value
        return cls({name: Scale(**values) for name, values in scales.items()})


def canonical(variables: tuple[str, ...], winds: tuple[str, str] | None) -> tuple[str, ...]:
    """Returns the variables with winds named as the model knows them."""
    names = dict(zip(winds, (WINDS["x"], WINDS["z"]), strict=True)) if winds else {}
    return tuple(names.get(name, name) for name in variables)
