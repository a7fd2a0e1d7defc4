"""Makes an archive of simulated weather in WeatherBench2's layout: ``scripts/simulate.py domain=climate``."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge

from domains.climate.simulation.archive_encoding import TIME_CHUNK, encoding, round_to_step, variable_attributes
from domains.climate.simulation.held_suarez import LEVEL_VARIABLES, RESOLUTIONS, SURFACE_VARIABLES, Fields, HeldSuarez
from sciml.core.config import divides, one_of
from sciml.core.errors import ConfigError
from sciml.core.files import atomic_directory
from sciml.core.lock import lock_output
from sciml.core.progress import track
from sciml.core.provenance import version
from sciml.core.types import AtLeastOne, NonNegative

if TYPE_CHECKING:
    import xarray

HOURS_PER_DAY = 24
STANDARD_PRESSURE_HPA = 1000.0
# The pressure at the ground of a simulated storm may fall this much below the standard one; a level
# that is inside the layers even then is inside them everywhere.
LOWEST_SURFACE_PRESSURE = 0.93


@dataclass(frozen=True)
class SimulateConfig:
    """Holds the keys of ``scripts/simulate.py domain=climate``.

    Attributes:
        out: the zarr store to make.
        days: simulated days in the archive, after the spin-up.
        spinup_days: days that are simulated first and thrown away; from rest, storms take weeks to
            appear and the mean state months to settle.
        interval_hours: hours between two stored times; must divide a day.
        seed: where the start is perturbed. The same seed gives the same weather on the same machine and versions.
        truncation: spectral resolution: T21 (64 x 32 points), T31 (96 x 48) or T42 (128 x 64).
        num_layers: equally thick layers of the model; one cannot hold storms.
        pressure_levels: hPa, increasing; within the layers.
        start: date of the first stored time. Only a label: the simulation has no seasons.
        overwrite: replace a store that is there.
    """

    out: str = "runs/climate/simulated_archive.zarr"
    days: AtLeastOne = 365
    spinup_days: NonNegative[int] = 200
    interval_hours: AtLeastOne = 12
    seed: NonNegative[int] = 0
    truncation: str = "T21"
    num_layers: Annotated[int, Ge(2)] = 10
    pressure_levels: tuple[int, ...] = (250, 500, 850)
    start: str = "2001-01-01"
    overwrite: bool = False

    def __post_init__(self) -> None:
        one_of(self.truncation, RESOLUTIONS, "truncation")
        divides(self.interval_hours, HOURS_PER_DAY, key="interval_hours", of="the hours of a day")
        self._check_levels()
        try:
            datetime.date.fromisoformat(self.start)
        except ValueError:
            raise ConfigError(f"{self.start!r} is no date", key="start", hint="for example start=2001-01-01") from None

    def _check_levels(self) -> None:
        levels = self.pressure_levels
        if not levels or any(upper >= lower for upper, lower in itertools.pairwise(levels)):
            raise ConfigError(
                f"{list(levels)} does not increase", key="pressure_levels", hint="for example [250, 500, 850]"
            )
        half_layer = 0.5 / self.num_layers
        top = np.ceil(half_layer * STANDARD_PRESSURE_HPA / LOWEST_SURFACE_PRESSURE)
        bottom = np.floor((1 - half_layer) * STANDARD_PRESSURE_HPA * LOWEST_SURFACE_PRESSURE)
        if levels[0] < top or levels[-1] > bottom:
            raise ConfigError(
                f"{self.num_layers} layers reach from {top:.0f} to {bottom:.0f} hPa, not to {list(levels)}",
                key="pressure_levels",
                hint="choose levels in between, or more layers",
            )

    @property
    def intervals_per_day(self) -> int:
        """Counts the stored times a day."""
        return HOURS_PER_DAY // self.interval_hours


def simulate(config: SimulateConfig) -> Path:
    """Simulates weather and writes it as one zarr store, whole or not at all.

    Memory holds one chunk of times, whatever the length.

    Returns:
        Path of the store.

    Raises:
        ConfigError: the store exists and is not to be replaced.
        MissingExtraError: ``dinosaur`` is not installed.
        RunError: the simulation blew up, or the disk is full.
    """
    path = Path(config.out)
    with lock_output(path, _is_archive, overwrite=config.overwrite, keep_existing=False):
        _simulate(config, path)
    return path


def _is_archive(path: Path) -> bool:
    return any((path / name).exists() for name in (".zgroup", ".zmetadata", "zarr.json"))


def _simulate(config: SimulateConfig, path: Path) -> None:
    atmosphere = HeldSuarez(
        config.truncation,
        num_layers=config.num_layers,
        pressure_levels=config.pressure_levels,
        interval_hours=config.interval_hours,
        seed=config.seed,
    )
    spinup = config.spinup_days * config.intervals_per_day
    for _ in track(atmosphere.spin_up(spinup), "Spinning up", total=spinup):
        pass

    total = config.days * config.intervals_per_day
    weather = track(atmosphere.advance(total), "Simulating", total=total)
    first = np.datetime64(config.start, "ns")
    with atomic_directory(path) as temporary:
        for number, block in enumerate(_blocks(weather)):
            interval = np.timedelta64(config.interval_hours, "h")
            times = first + interval * (number * TIME_CHUNK + np.arange(len(block)))
            dataset = _dataset(block, times, atmosphere, _attributes(config))
            if number == 0:
                dataset.to_zarr(temporary, mode="w", zarr_format=2, consolidated=True, encoding=encoding(dataset))
            else:
                dataset.to_zarr(temporary, append_dim="time", zarr_format=2, consolidated=True)


def _blocks(weather: Iterator[Fields]) -> Iterator[list[Fields]]:
    """Yields the states in lists of one chunk each, so that no chunk is ever written twice."""
    while block := list(itertools.islice(weather, TIME_CHUNK)):
        yield block


def _dataset(
    block: list[Fields], times: np.ndarray, atmosphere: HeldSuarez, attributes: dict[str, str]
) -> xarray.Dataset:
    """Returns one block of the archive, rounded and described."""
    import xarray as xr

    levels = atmosphere.pressure_levels
    coords = {
        name: (name, values, variable_attributes(name))
        for name, values in {
            "time": times,
            "level": levels,
            "latitude": atmosphere.latitude,
            "longitude": atmosphere.longitude,
        }.items()
    }
    variables = {}
    for name in (*LEVEL_VARIABLES, *SURFACE_VARIABLES):
        on_levels = name in LEVEL_VARIABLES
        values = round_to_step(name, np.stack([fields[name] for fields in block]), levels if on_levels else None)
        dims = ("time", "level", "latitude", "longitude") if on_levels else ("time", "latitude", "longitude")
        variables[name] = (dims, values, variable_attributes(name))
    return xr.Dataset(variables, coords, attributes)


def _attributes(config: SimulateConfig) -> dict[str, str]:
    settings = " ".join(f"{key}={value}" for key, value in asdict(config).items() if key not in ("out", "overwrite"))
    settings = settings.replace("(", "[").replace(")", "]").replace(", ", ",")
    return {
        "title": "Simulation (Held-Suarez), not ERA5",
        "symmetries": "longitude, equator",
        "summary": (
            "Weather of an idealized dry atmosphere without mountains, seasons or a day, simulated for training and "
            "testing forecast models. No observation and no reanalysis went into it; its dates are labels."
        ),
        "source": (
            f"Held-Suarez test on the dynamical core dinosaur {version('dinosaur')} (jax {version('jax')}), "
            f"{config.truncation}, {config.num_layers} layers"
        ),
        "references": "Held and Suarez (1994), doi:10.1175/1520-0477(1994)075<1825:APFTIO>2.0.CO;2",
        "license": "Apache-2.0, as the project that made it",
        "history": f"scripts/simulate.py domain=climate {settings}",
        "Conventions": "CF-1.7",
    }
