"""Calendars of climate models: dates, days of the year and the sun's time agree with cftime and with the world's."""

import cftime
import numpy as np
import pytest
import torch
import xarray as xr

from domains.climate.data.batch import FieldBatch
from domains.climate.data.calendar import KNOWN, WORLD, Calendar
from domains.climate.data.forcings import forcing_fields
from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.readers import open_source
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from domains.climate.model.task import ClimateTask
from sciml.core.errors import ConfigError, DataError
from tests.unit.climate.weather_files import as_cds, canonical

MODELS = ["noleap", "360_day", "all_leap", "julian"]
UNITS = "minutes since 1970-01-01"


@pytest.mark.parametrize("name", KNOWN)
def test_years_and_days_are_those_of_cftime(name):
    minutes = np.arange(-80_000_000, 80_000_000, 777_777)
    dates = cftime.num2date(minutes, UNITS, "proleptic_gregorian" if name == "standard" else name)
    year, day = Calendar(name).years_and_days(minutes.astype("datetime64[m]"))
    assert year.tolist() == [date.year for date in dates]
    assert (day + 1).tolist() == [date.dayofyr for date in dates]
    assert [Calendar(name).show(time) for time in minutes.astype("datetime64[m]")] == [
        date.strftime("%Y-%m-%dT%H:%M") for date in dates
    ]


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize(
    "text", ["1999", "2000-02", "2000-12", "2001-02-28", "2003-12-30", "2004-02-28T23", "2004-05-06T07:59"]
)
def test_the_last_minute_of_a_date_is_followed_by_the_next(name, text):
    calendar = Calendar(name)
    first, last = calendar.moment(text), calendar.moment(text, last=True)
    assert calendar.show(first).startswith(text)
    assert calendar.show(last).startswith(text)
    assert not calendar.show(last + 1).startswith(text)
    assert not calendar.show(first - 1).startswith(text)
    assert calendar.moment(calendar.show(last)) == last


def test_dates_that_a_calendar_lacks():
    assert Calendar("360_day").show(Calendar("360_day").moment("2001-02-30")) == "2001-02-30T00:00"
    for name in ("standard", "noleap", "julian"):
        with pytest.raises(ConfigError, match="start: '2001-02-30' is no date"):
            Calendar(name).moment("2001-02-30", key="start")


@pytest.mark.parametrize("name", MODELS)
def test_the_suns_time_is_that_of_the_same_part_of_the_year(name):
    calendar = Calendar(name)
    hours = 24.0 * np.arange(0, 4000, 7) + 13.5
    world = calendar.standard_hours(hours)
    assert (np.mod(world, 24) == 13.5).all()
    days = {"noleap": 365, "360_day": 360, "all_leap": 366, "julian": 365.25}[name]
    part = calendar.day_of_year((hours * 60).astype("datetime64[m]")) / days
    world_part = WORLD.day_of_year((world * 60).astype("datetime64[m]")) / 365.2425
    assert np.abs(part - world_part).max() < 0.9 / 365  # half a day, and what leap years move
    assert (WORLD.standard_hours(hours) == hours).all()


def in_calendar(dataset, name, start="2001-02-20"):
    times = xr.date_range(start, periods=dataset.sizes["time"], freq="12h", calendar=name, use_cftime=True)
    return dataset.assign_coords(time=times)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_keeps_its_calendar_from_the_file_to_the_store(name, tmp_path):
    waves = as_cds(synthetic_source(num_times=60, step_hours=12))
    in_calendar(waves, name).to_netcdf(tmp_path / "model.nc")
    read = open_source(str(tmp_path / "model.nc"))
    assert read.time.values[20].calendar == name
    store = ClimateStore.open(prepare(PrepareConfig(path=str(tmp_path / "model.nc"), out=str(tmp_path / "s.zarr"))))
    assert store.schema.calendar == name
    assert store.schema.step_hours == 12
    assert store.is_even
    assert [store.calendar.show(time) for time in store.times] == [
        date.strftime("%Y-%m-%dT%H:%M") for date in in_calendar(waves, name).time.values
    ]
    np.testing.assert_array_equal(
        store.read(np.arange(60))[:, store.schema.channels.index("t2m")],
        canonical(synthetic_source(num_times=60, step_hours=12))["2m_temperature"].values,
    )
    with xr.open_zarr(tmp_path / "s.zarr") as stored:
        assert stored.time.values[20] == in_calendar(waves, name).time.values[20]
    late = ClimateStore.open(
        prepare(PrepareConfig(path=str(tmp_path / "model.nc"), out=str(tmp_path / "l.zarr"), start="2001-03-01"))
    )
    assert late.calendar.show(late.times[0]) == "2001-03-01T00:00"


def test_two_calendars_are_not_mixed(tmp_path):
    waves = as_cds(synthetic_source(num_times=8, step_hours=12))
    in_calendar(waves, "noleap").to_netcdf(tmp_path / "a.nc")
    in_calendar(waves, "360_day", "2002-01-01").to_netcdf(tmp_path / "b.nc")
    with pytest.raises(DataError, match=r"a\.nc and others: their times are in the calendars 360_day and noleap"):
        open_source(str(tmp_path))


def test_years_far_from_ours(tmp_path):
    waves = as_cds(synthetic_source(num_times=40, step_hours=12))
    in_calendar(waves, "noleap", "0003-01-01").to_netcdf(tmp_path / "model.nc")
    store = ClimateStore.open(prepare(PrepareConfig(path=str(tmp_path / "model.nc"), out=str(tmp_path / "s.zarr"))))
    assert store.calendar.show(store.times[0]) == "0003-01-01T00:00"


def test_the_model_and_the_sun_are_told_the_time_of_the_world(tmp_path):
    """A state on the 300th day of a year of 360 days has the sun of the same part of ours."""
    waves = as_cds(synthetic_source(num_times=60, step_hours=12))
    in_calendar(waves, "360_day", "2001-10-20").to_netcdf(tmp_path / "model.nc")
    store = ClimateStore.open(prepare(PrepareConfig(path=str(tmp_path / "model.nc"), out=str(tmp_path / "s.zarr"))))
    task = ClimateTask(store.schema, store.statistics, score_lead_times=(), forcings=["toa_incident_solar_radiation"])
    state = torch.from_numpy(store.read(np.array([10])))
    hours, zero = torch.tensor([store.hours[10]]), torch.zeros(1, dtype=torch.float64)
    told = {}

    def spy(fields, names, interval, time, constants, **grid):
        told.update(time=time, sun=constants)
        return torch.zeros_like(fields)

    task.predict(spy, FieldBatch(state, state, hours, zero, zero[:, None] + 12))
    world = Calendar("360_day").standard_hours(hours.numpy())
    assert told["time"].tolist() == world.tolist() != hours.tolist()
    grid = store.schema.latitude, store.schema.longitude
    when = torch.from_numpy(world)
    expected = forcing_fields("toa_incident_solar_radiation", when, when + 12, *grid)
    torch.testing.assert_close(told["sun"], expected)
