"""One forecast of a flow with all that pictures of it need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from domains.fluids.amr.indicator_inputs import WINDS
from domains.fluids.data.schema import DataSet, FluidsSchema
from domains.fluids.data.writers.ensemble import LONG_NAMES, UNITS
from sciml.forecast.example import ForecastExample
from sciml.report.shading import Shading
from sciml.report.style import pretty_unit

FIELD_COLORS = "PuOr_r"
POSITIVE_COLORS = "viridis"


@dataclass(frozen=True)
class Quantity:
    """Describes what is drawn of a state.

    Attributes:
        unit: empty where it is not known.
        signed: whether zero is the value that all others are seen from.
    """

    name: str
    unit: str
    signed: bool

    def label(self, name: str) -> str:
        """Returns a name with the unit."""
        return f"{name}, {pretty_unit(self.unit)}" if self.unit else name

    def shading(self, *fields: Float[np.ndarray, "..."]) -> Shading:
        """Returns colors of its values, centered where zero is."""
        return Shading.centered(FIELD_COLORS, *fields) if self.signed else Shading.spanning(POSITIVE_COLORS, *fields)


@dataclass(frozen=True, kw_only=True)
class FlowExample(ForecastExample):
    """Holds a rollout from one state of a flow, rows along z and columns along x.

    Attributes:
        title: what the data are.
        fluid: False in obstacles; None where there are none.
        profiles: density (kg/m^3) and potential temperature (K) of the air at rest; None where there are none.
    """

    data_set: DataSet
    title: str
    fluid: Bool[np.ndarray, "z x"] | None = None
    profiles: Float[np.ndarray, "2 z"] | None = None

    @classmethod
    def of(cls, schema: FluidsSchema, values: Mapping[str, np.ndarray]) -> FlowExample | None:
        """Returns the example of arrays named as the attributes, lead times in s; None where there is no forecast."""
        if "forecast" not in values:
            return None
        data_set = list(schema.data_sets.values())[int(np.ravel(values["data_set"])[0])]
        hours = np.asarray(values["lead_times"], np.float64) / 3600
        fluid = np.asarray(values["fluid"], bool) if "fluid" in values else None
        arrays = cls.arrays_of(values, "profiles")
        return cls(data_set=data_set, title=schema.title, lead_times=hours, fluid=fluid, **arrays)

    def variables(self, most: int) -> list[str]:
        """Returns at most so many variables, potential temperature first, where bubbles and fronts are seen best."""
        return sorted(self.data_set.variables, key=lambda name: name != "theta")[:most]

    def quantity(self, name: str) -> Quantity:
        """Returns what is drawn of a variable; winds, perturbations and what has values of both signs are signed."""
        known = self.initial if self.truth is None else self.truth
        values = self.values(known, name)
        both = bool(np.nanmin(values) < 0 < np.nanmax(values))
        perturbation = self.data_set.has_totals and name in UNITS
        return Quantity(name, self.data_set.unit(name), both or perturbation or name in WINDS.values())

    def long_name(self, name: str) -> str:
        """Returns ``perturbation of potential temperature``; the name itself where no other is known."""
        is_known = self.data_set.has_totals or name in WINDS.values()
        return LONG_NAMES.get(name, name) if is_known else name

    def values(self, states: Float[np.ndarray, "*lead variable z x"], name: str) -> Float[np.ndarray, "*lead z x"]:
        """Returns a variable of some states."""
        return states[..., self.data_set.variables.index(name), :, :]

    def vrmse(self, field: Float[np.ndarray, "z x"], truth: Float[np.ndarray, "z x"]) -> float:
        """Returns the root of the mean squared error over the variance of the truth, outside of obstacles."""
        inside = np.ones(field.shape, bool) if self.fluid is None else self.fluid
        variance = truth[inside].var()
        return float(np.sqrt(np.mean((field - truth)[inside] ** 2) / variance)) if variance > 0 else np.nan
