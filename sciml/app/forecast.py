"""A forecast from a trained run: rolled out step by step into a file that grows."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciml.app.run_on_model import RunChoice
from sciml.core.config import build
from sciml.core.duration import format_hours, parse_hours
from sciml.core.errors import ConfigError
from sciml.core.files import disk_errors
from sciml.core.result import CommandResult
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import pick_device
from sciml.domain.optional import ForecastRequest, Forecasts
from sciml.forecast.ensemble import ensemble_rollout
from sciml.run.loaded import open_run


@dataclass(frozen=True)
class ForecastConfig(RunChoice):
    """Keys of ``conf/forecast.yaml``."""

    init_time: str | None = None
    lead_time: str | float = "72h"
    every: str | float | None = None
    members: int = 1
    perturbation: float = 0.02
    combine_intervals: bool = False
    seed: int = 0
    out: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.members < 1:
            raise ConfigError(f"{self.members} members are none", key="members", hint="1 is a single forecast")

    @property
    def request(self) -> ForecastRequest:
        return ForecastRequest(
            init_time=self.init_time,
            lead_hours=parse_hours(self.lead_time, key="lead_time"),
            every_hours=None if self.every is None else parse_hours(self.every, key="every"),
            members=self.members,
            perturbation=self.perturbation,
            combine_intervals=self.combine_intervals,
            seed=self.seed,
        )


def run(values: Mapping[str, Any]) -> CommandResult:
    """Forecasts, writes, draws, and says where."""
    config = build(ForecastConfig, values)
    request = config.request
    mesh = Mesh.alone(pick_device(config.device))
    folder = config.folder
    opened = open_run(folder, checkpoint=str(config.checkpoint), mesh=mesh, changes=config.changes)
    domain = opened.experiment.domain
    if not isinstance(domain, Forecasts):
        raise ConfigError(f"there is no time to forecast in domain={domain.name}", key="run", hint="use evaluate.py")
    batches = [batch.to(mesh.device) for batch in domain.forecast_batches(opened.experiment, opened.splits, request)]
    path = _new_path(config.out, folder.path, domain.forecast_suffixes)
    leads = []
    with disk_errors(path):
        writer = domain.forecast_writer(path, opened.splits, batches)
        try:
            for lead, prediction in ensemble_rollout(opened.task, opened.model, batches):
                writer.append(lead, prediction)
                leads.append(lead)
                print(f"lead {format_hours(lead)} written", file=sys.stderr, flush=True)
        finally:
            writer.close()
    figures = domain.forecast_figures(path, opened.splits)
    pictures = [figure.render(path.with_name(f"{path.stem}_{figure.name}")) for figure in figures]
    lines = [f"forecast  {path}", *(f"picture   {picture}" for picture in pictures)]
    document = {"forecast": str(path), "lead_times_h": leads, "pictures": [str(p) for p in pictures]}
    return CommandResult(document, "\n".join(lines))


def _new_path(out: str | None, run: Path, endings: Sequence[str]) -> Path:
    """Where the forecast goes; refuses to write over an earlier one that was named."""
    if out is not None:
        path = Path(out)
        if path.suffix not in endings:
            known = " or ".join(endings)
            raise ConfigError(
                f"{out!r} does not end in {known}", key="out", hint=f"for example {path.stem}{endings[0]}"
            )
        if path.exists():
            raise ConfigError(f"{out} is there already", key="out", hint="choose another name, or remove it first")
        return path
    forecasts = run / "forecasts"
    number = len(list(forecasts.glob(f"forecast-*{endings[0]}"))) + 1
    return forecasts / f"forecast-{number:03d}{endings[0]}"
