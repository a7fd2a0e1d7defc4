"""A forecast from a trained run: rolled out step by step into a file that grows."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

from sciml.app.run_on_model import RunChoice
from sciml.core.config import build
from sciml.core.duration import parse_hours
from sciml.core.files import disk_errors
from sciml.core.outputs import new_output
from sciml.core.result import CommandResult
from sciml.core.types import AtLeastOne, NonNegative
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import pick_device
from sciml.domain.forecasting import ForecastRequest, Forecasts
from sciml.domain.loading import load_domain
from sciml.report.scores import TimeText, time_text_of
from sciml.run.compose import Composition
from sciml.run.folder import RunFolder
from sciml.run.forecast import Forecast, forecasting_domain, usual_lead_hours
from sciml.run.loaded import load_model


@dataclass(frozen=True)
class ForecastConfig(RunChoice):
    """Holds the keys of ``conf/forecast.yaml``."""

    init_time: str | None = None
    lead_time: str | float | None = None
    every: str | float | None = None
    members: AtLeastOne | None = None
    perturbation: NonNegative[float] | None = None
    combine_intervals: bool = False
    seed: NonNegative[int] | None = None
    out: str | None = None

    def request(self, folder: RunFolder, domain: Forecasts) -> ForecastRequest:
        """Returns what is to be forecast with a run.

        Raises:
            ConfigError: for a lead time or an interval that is no duration, or where the run does not say how far.
        """
        lead, unit = self.lead_time, domain.time_unit
        lead_hours = usual_lead_hours(folder, domain) if lead is None else parse_hours(lead, key="lead_time", unit=unit)
        return ForecastRequest(
            init_time=self.init_time,
            lead_hours=lead_hours,
            every_hours=None if self.every is None else parse_hours(self.every, key="every", unit=unit),
            members=self.members,
            perturbation=self.perturbation,
            combine_intervals=self.combine_intervals,
            seed=self.seed,
        )


def run(composition: Composition) -> CommandResult:
    """Forecasts, and writes the forecast and its pictures; typed keys of the run itself change what it starts from."""
    config = build(ForecastConfig, composition.config)
    mesh = Mesh.alone(pick_device(config.device))
    folder = config.folder(Forecasts)
    domain = forecasting_domain(load_domain(folder.record["config"]["domain"]))
    request = config.request(folder, domain)
    loaded = load_model(folder, checkpoint=str(config.checkpoint), mesh=mesh, overrides=composition.overrides)
    forecast = Forecast.prepare(loaded, request)
    with (
        new_output(config.out, folder.results / "forecasts", "forecast", domain.forecast_suffixes) as output,
        disk_errors(output.path),
    ):
        leads = forecast.write(output.temporary, partial(_say, time_text_of(domain, loaded.fitted.schema.to_dict())))
    path = output.path
    figures = forecast.prepared.figures(path)
    pictures = [figure.render(path.with_name(f"{path.stem}_{figure.name}")) for figure in figures]
    lines = [f"forecast  {path}", *(f"picture   {picture}" for picture in pictures)]
    document: dict[str, Any] = {"forecast": str(path), "lead_times_h": leads, "pictures": [str(p) for p in pictures]}
    if (summary := forecast.prepared.summary(path)) is not None:
        lines.append(summary.text)
        document |= summary.document
    return CommandResult(document, "\n".join(lines))


def _say(time_text: TimeText, lead: float) -> None:
    print(f"lead {time_text(lead)} written", file=sys.stderr, flush=True)
