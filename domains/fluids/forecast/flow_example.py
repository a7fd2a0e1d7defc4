"""One forecast of a flow with all that pictures of it need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from domains.fluids.amr.indicator_inputs import WINDS
from domains.fluids.data.schema import DataSet, FluidsSchema
from domains.fluids.data.writers.ensemble import LONG_NAMES, UNITS
from sciml.core.duration import format_hours
from sciml.report.shading import Shading
from sciml.report.style import pretty_unit

FIELD_COLORS = "PuOr_r"
POSITIVE_COLORS = "viridis"


@dataclass(frozen=True)
class Quantity:
    """What is drawn of a state.

    Attributes:
        unit: empty where it is not known.
        signed: whether zero is the value that all others are seen from.
    """

    name: str
    unit: str
    signed: bool

    def label(self, name: str) -> str:
        """A name with the unit."""
        return f"{name}, {pretty_unit(self.unit)}" if self.unit else name

    def shading(self, *fields: Float[np.ndarray, "..."]) -> Shading:
        """Colors of its values, centered where zero is."""
        return Shading.centered(FIELD_COLORS, *fields) if self.signed else Shading.spanning(POSITIVE_COLORS, *fields)


@dataclass(frozen=True)
class FlowExample:
    """A rollout from one state.

    Attributes:
        title: what the data are.
        lead_times: s, increasing, all above 0.
        truth: None where it is not known.
        fluid: False in obstacles; None where there are none.
        profiles: density (kg/m^3) and potential temperature (K) of the air at rest; None where there are none.
    """

    data_set: DataSet
    title: str
    lead_times: Float[np.ndarray, "lead"]
    forecast: Float[np.ndarray, "lead variable z x"]
    initial: Float[np.ndarray, "variable z x"]
    truth: Float[np.ndarray, "lead variable z x"] | None = None
    fluid: Bool[np.ndarray, "z x"] | None = None
    profiles: Float[np.ndarray, "2 z"] | None = None

    @classmethod
    def of(cls, schema: FluidsSchema, values: Mapping[str, np.ndarray]) -> FlowExample | None:
        """From arrays named as the attributes; None where there is no forecast."""
        if "forecast" not in values:
            return None
        data_set = list(schema.data_sets.values())[int(np.ravel(values["data_set"])[0])]
        names = ("lead_times", "forecast", "initial", "truth", "profiles")
        arrays: dict[str, Any] = {name: np.asarray(values[name], np.float64) for name in names if name in values}
        fluid = np.asarray(values["fluid"], bool) if "fluid" in values else None
        return cls(data_set, schema.title, fluid=fluid, **arrays)

    def nearest_lead(self, seconds: float | None) -> int:
        """Position of the lead time nearest to the wanted one; the last one where none is wanted."""
        return len(self.lead_times) - 1 if seconds is None else int(np.abs(self.lead_times - seconds).argmin())

    def variables(self, most: int) -> list[str]:
        """At most so many variables, potential temperature first, where bubbles and fronts are seen best."""
        return sorted(self.data_set.variables, key=lambda name: name != "theta")[:most]

    def quantity(self, name: str) -> Quantity:
        """Of a variable. Winds and perturbations are signed, and whatever has values of both signs."""
        known = self.initial if self.truth is None else self.truth
        values = self.values(known, name)
        both = bool(np.nanmin(values) < 0 < np.nanmax(values))
        perturbation = self.data_set.has_totals and name in UNITS
        return Quantity(name, UNITS.get(name, ""), both or perturbation or name in WINDS.values())

    def long_name(self, name: str) -> str:
        """``perturbation of potential temperature``; the name itself where no other is known."""
        is_known = self.data_set.has_totals or name in WINDS.values()
        return LONG_NAMES.get(name, name) if is_known else name

    def values(self, states: Float[np.ndarray, "*lead variable z x"], name: str) -> Float[np.ndarray, "*lead z x"]:
        """A variable of some states."""
        return states[..., self.data_set.variables.index(name), :, :]

    def runs(self) -> dict[str, Float[np.ndarray, "frame variable z x"]]:
        """Truth, where known, and forecast, each with the initial state before it."""
        known = {"truth": self.truth, "forecast": self.forecast}
        return {name: np.concatenate([self.initial[None], run]) for name, run in known.items() if run is not None}

    def vrmse(self, field: Float[np.ndarray, "z x"], truth: Float[np.ndarray, "z x"]) -> float:
        """Root of the mean squared error over the variance of the truth, outside of obstacles."""
        inside = np.ones(field.shape, bool) if self.fluid is None else self.fluid
        variance = truth[inside].var()
        return float(np.sqrt(np.mean((field - truth)[inside] ** 2) / variance)) if variance > 0 else np.nan


def lead_text(seconds: float) -> str:
    """``200 s``, ``1.5 h``."""
    return format_hours(seconds / 3600)
