"""Trained models as objects of Python, for notebooks and scripts; they write nothing unless they are asked to."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from torch import nn

from sciml.core.config import build
from sciml.core.duration import parse_hours
from sciml.core.errors import ConfigError, DataError, nearest
from sciml.core.installation import located
from sciml.distributed.mesh import Mesh
from sciml.domain.forecasting import ForecastRequest
from sciml.domain.protocol import Domain, LoadedModel
from sciml.run.folder import RunFolder
from sciml.run.forecast import Forecast, forecasting_domain, usual_lead_hours
from sciml.run.spec import RunSpec, spec_of_run

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


class TrainedModel:
    """Holds a trained model; :func:`sciml.load` makes it.

    Args:
        folder: of its run, or of an exported model.
        checkpoint: ``best``, ``latest`` or a step.
        mesh: the device.

    Attributes:
        folder: where it was loaded from.
        config: the keys that it was trained with, by group.
        module: the network, in evaluation mode; what it is given is the domain's business.
    """

    def __init__(self, folder: RunFolder, *, checkpoint: str = "best", mesh: Mesh | None = None) -> None:
        from sciml.run.loaded import load_model  # torch's checkpoints take a second to import, which no plan needs

        self._run, self._checkpoint, self._mesh = folder, checkpoint, mesh or Mesh.alone()
        self._loaded = load_model(folder, checkpoint=checkpoint, mesh=self._mesh)

    @property
    def folder(self) -> Path:
        return self._run.path

    @property
    def domain(self) -> Domain:
        """Returns the domain, e.g. that of climate."""
        return self._spec.domain

    @property
    def config(self) -> Mapping[str, Any]:
        return self._spec.config

    @property
    def module(self) -> nn.Module:
        return self._loaded.model

    @property
    def _spec(self) -> RunSpec:
        assert isinstance(self._loaded.spec, RunSpec)
        return self._loaded.spec

    def __getattr__(self, name: str) -> NoReturn:
        """Says what a model of this domain can do, where it is asked for something else."""
        if name.startswith("_"):
            raise AttributeError(name)
        verbs = [verb for verb in dir(type(self)) if callable(getattr(type(self), verb)) and not verb.startswith("_")]
        raise AttributeError(f"a model of {self.domain.name} has no {name}; it has {', '.join(verbs)}")

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.module.parameters())
        return f"<{type(self).__name__} of {self.domain.name}, {size:,} parameters, {self.folder}>"

    def score(self, data: str | Path | None = None, **overrides: Any) -> pd.DataFrame:
        """Scores the model on its test data, or on others, beside the baselines.

        Args:
            data: a path in place of the run's own data.
            overrides: further keys of the run, e.g. ``**{"task.score_lead_times": ["72h"]}``.

        Returns:
            One row for each variable, lead time and metric: its value, its unit, and the values of the baselines.

        Raises:
            ConfigError, DataError: where the data are missing or do not fit.
        """
        import pandas as pd

        changed = {**overrides, **({} if data is None else {"data.path": located(str(data))})}
        from sciml.run.loaded import load_run
        from sciml.run.scoring import score_test

        run = load_run(self._run, checkpoint=self._checkpoint, mesh=self._mesh, overrides=changed)
        spec = run.spec
        rows = score_test(run, self._mesh, {}, batch_size=spec.trainer.micro_batch(1), seed=spec.seed)
        return pd.json_normalize([{name: value for name, value in row.items() if name != "curve"} for row in rows])


class ForecastModel(TrainedModel):
    """Holds a trained model of fields that change in time."""

    def forecast(
        self,
        start: xr.Dataset | str | Path | None = None,
        lead_time: str | float | None = None,
        *,
        every: str | float | None = None,
        members: int | None = None,
        perturbation: float | None = None,
        seed: int | None = None,
        combine_intervals: bool = False,
        **overrides: Any,
    ) -> xr.Dataset:
        """Forecasts from a state.

        Args:
            start: a dataset or a file that has the model's channels, whose last time is taken; or a time of the run's
                own data as the domain writes it, e.g. ``2001-12-01T00``. None takes the first time of its test data.
            lead_time: how far ahead, e.g. ``72h`` or ``200s``; a bare number is hours of weather, and seconds of a
                flow. None takes the domain's usual one, 72 h of weather, or the longest that the run was scored at.
            every: interval of one step of the model, in the same way; None reaches every lead time by the fewest
                steps.
            members: size of an ensemble of perturbed starts; None takes the run's.
            perturbation: their size in standard deviations; None takes the run's.
            seed: of the perturbations.
            combine_intervals: one more kind of ensemble: a member for each interval of the model that fits.
            overrides: further keys of the run, e.g. ``**{"data.allow_gaps": True}``.

        Returns:
            The fields at every lead time of the model's step, as ``sciml forecast`` writes them.

        Raises:
            ConfigError, DataError: where the state does not fit the model, or the lead time cannot be reached.
        """
        import xarray as xr

        own = ("lead_time", "every", "members", "perturbation", "seed", "combine_intervals")
        if unknown := [key for key in overrides if "." not in key]:
            raise ConfigError("unknown key", key=unknown[0], hint=nearest(unknown[0], [*own, "data.*", "task.*"]))
        with tempfile.TemporaryDirectory() as folder:
            time = None
            if isinstance(start, xr.Dataset):
                overrides["data.path"] = str(Path(folder) / "start.nc")
                start.to_netcdf(overrides["data.path"])
            elif start is not None and _is_file(start):
                overrides["data.path"] = located(str(start))
            elif start is not None:
                time = _time(start)
            domain = forecasting_domain(self.domain)
            usual, unit = usual_lead_hours(self._run, domain) if lead_time is None else 0.0, domain.time_unit
            request = build(
                ForecastRequest,
                {
                    "init_time": time,
                    "lead_hours": usual if lead_time is None else parse_hours(lead_time, key="lead_time", unit=unit),
                    "every_hours": None if every is None else parse_hours(every, key="every", unit=unit),
                    "members": members,
                    "perturbation": perturbation,
                    "seed": seed,
                    "combine_intervals": combine_intervals,
                },
            )
            loaded = self._with(overrides)
            path = Path(folder) / f"forecast{domain.forecast_suffixes[0]}"
            with _naming_the_dataset(folder):
                forecast = Forecast.prepare(loaded, request)
            forecast.write(path)
            opened: Any = xr.open_zarr if path.suffix == ".zarr" else xr.open_dataset
            with opened(path, decode_timedelta=True) as written:
                return written.load()

    def _with(self, overrides: Mapping[str, Any]) -> LoadedModel:
        """Returns the model with other keys of its data and its task."""
        if wrong := [key for key in overrides if key.partition(".")[0] not in ("data", "task")]:
            raise ConfigError("cannot be changed of a trained model", key=wrong[0], hint="change data.* or task.*")
        return replace(self._loaded, spec=spec_of_run(self._run, overrides)) if overrides else self._loaded


def _is_file(start: Any) -> bool:
    """Says whether a start names a file: one that is there, or one that has the form of its name."""
    text = str(start)
    is_name = isinstance(start, Path) or (isinstance(start, str) and re.fullmatch(r".+\.[A-Za-z]\w*/?", text))
    return bool(is_name) or os.path.exists(located(text))


def _time(start: Any) -> str:
    """Returns a time as the commands take it.

    Raises:
        ConfigError: it is neither a time nor anything else that a forecast starts from.
    """
    is_scalar = isinstance(start, str | int | datetime.date) or (hasattr(start, "dtype") and not start.shape)
    if not is_scalar or isinstance(start, bool):
        raise ConfigError(f"must be a dataset, a file or a time, got {type(start).__name__}", key="start")
    return str(start)


@contextlib.contextmanager
def _naming_the_dataset(folder: str) -> Iterator[None]:
    """Lets errors speak of the dataset that was given, and not of the file that it is read from."""
    file = str(Path(folder) / "start.nc")
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace(file, "the dataset")) from error.__cause__
