"""A forecast of a trained model: prepared by its domain, rolled out step by step into a file that grows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sciml.core.errors import ConfigError
from sciml.domain.forecasting import ForecastRequest, Forecasts, PreparedForecast
from sciml.domain.protocol import Domain, LoadedModel
from sciml.forecast.ensemble import ensemble_rollout
from sciml.forecast.intervals import requested_trees
from sciml.run.folder import RunFolder
from sciml.run.spec import RunSpec


def forecasting_domain(domain: Domain) -> Forecasts:
    """Returns a domain as one that forecasts.

    Raises:
        ConfigError: where it cannot.
    """
    if not isinstance(domain, Forecasts):
        raise ConfigError(
            f"there is no time to forecast in domain={domain.name}", key="run", hint="evaluate it instead"
        )
    return domain


def usual_lead_hours(folder: RunFolder, domain: Forecasts) -> float:
    """Returns how far ahead a forecast of a run leads where nothing is said: the lead time of the domain's headlines,
    or the longest that the run was scored at.

    Raises:
        ConfigError: where neither is known.
    """
    scored = {row["lead_time_h"] for row in folder.scores() if row.get("lead_time_h")}
    usual = domain.headline_lead_h
    if usual is not None and (usual in scored or not scored):
        return usual
    if not scored:
        raise ConfigError("must be given, the run was not scored yet", key="lead_time", hint="e.g. lead_time=200s")
    return max(scored)


@dataclass(frozen=True)
class Forecast:
    """Holds a forecast that can begin."""

    loaded: LoadedModel
    request: ForecastRequest
    prepared: PreparedForecast

    @classmethod
    def prepare(cls, loaded: LoadedModel, request: ForecastRequest) -> Forecast:
        """Reads the initial conditions.

        Raises:
            ConfigError, DataError: where they do not fit the model, or there are none.
        """
        assert isinstance(loaded.spec, RunSpec)
        return cls(loaded, request, forecasting_domain(loaded.spec.domain).prepare_forecast(loaded, request))

    def write(self, path: Path, on_lead: Callable[[float], None] | None = None) -> list[float]:
        """Writes the forecast file; returns its lead times in hours.

        Args:
            on_lead: is called with each lead time that was written.
        """
        prepared, device = self.prepared, self.loaded.device
        task, batch = prepared.task.to(device), prepared.batch.to(device)
        trees = requested_trees(self.request, prepared.intervals, prepared.step_hours)
        leads = []
        with contextlib.closing(prepared.writer(path)) as writer:
            for lead, prediction in ensemble_rollout(task, self.loaded.model, batch, trees):
                writer.append(lead, prediction)
                leads.append(lead)
                if on_lead is not None:
                    on_lead(lead)
        return leads
