"""Sums, means and extremes speak of periods, as files state them or as their times imply."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.readers import Source, open_source
from domains.climate.data.readers.periods import STARTS
from domains.climate.data.schema import ClimateSchema
from domains.climate.data.states import OtherStates
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from domains.climate.forecast.forecast_file import ForecastFile
from sciml.core.errors import DataError
from sciml.domain.protocol import Prediction
from tests.unit.climate.weather_files import as_cds

CLOCK = "minutes since 1970-01-01"


def hourly(tmp_path, **changes):
    """Writes 30 days of hourly data: rain falls in the first hours of each day, the sun shines, it gusts."""
    waves = as_cds(synthetic_source(num_times=480, step_hours=1, channels=["t2m", "u10"]))
    generator = np.random.default_rng(0)
    for name, unit in (("tp", "m"), ("ssrd", "J m**-2"), ("fg10", "m s**-1"), ("mtpr", "kg m**-2 s**-1")):
        scale = {"tp": 1e-3, "ssrd": 1e6, "fg10": 20, "mtpr": 1e-4}[name]
        waves[name] = (waves.t2m.dims, (scale * generator.random(waves.t2m.shape)).astype("f4"), {"units": unit})
    waves = waves.assign(**changes)
    waves.to_netcdf(tmp_path / "hourly.nc")
    return waves


def test_sums_means_and_extremes_are_taken_over_the_step(tmp_path):
    raw = hourly(tmp_path)
    channels = ["t2m", "tp", "ssrd", "fg10", "mtpr"]
    store = ClimateStore.open(
        prepare(
            PrepareConfig(path=str(tmp_path / "hourly.nc"), out=str(tmp_path / "s.zarr"), channels=channels, step="6h")
        )
    )
    stored = store.read(np.arange(len(store.times)))
    assert str(store.times[0]) == "2001-01-01T06:00"  # the first six hours are not whole before
    for number, time in enumerate(store.times[:20]):
        position = int(np.flatnonzero(raw.time.values == time)[0])
        window = raw.isel(time=slice(position - 5, position + 1))
        expected = [raw.t2m.values[position], window.tp.sum("time"), window.ssrd.sum("time"), window.fg10.max("time"),
                    window.mtpr.mean("time")]  # fmt: skip
        for channel, values in enumerate(expected):
            np.testing.assert_allclose(stored[number, channel], np.asarray(values), rtol=1e-5)


def test_a_missing_hour_of_rain_is_named(tmp_path):
    raw = hourly(tmp_path)
    rain = raw[["tp"]].drop_isel(time=100)
    raw.drop_vars("tp").to_netcdf(tmp_path / "a.nc")
    rain.to_netcdf(tmp_path / "b.nc")
    config = {"path": [str(tmp_path / "a.nc"), str(tmp_path / "b.nc")], "channels": ["t2m", "tp"], "step": "6h"}
    with pytest.raises(DataError, match=r"total_precipitation \(tp\) is missing in the 6 h before at 2001-01-05T06:00"):
        prepare(PrepareConfig(out=str(tmp_path / "s.zarr"), **config))


def summed(steps, values, **attrs):
    """Returns what a forecast from one time has summed at some steps, as GRIB and CDS's NetCDF of forecasts have it."""
    values, grid = np.asarray(values, dtype=float) * 1e-3, np.zeros((5, 8))
    return xr.DataArray(
        values[:, None, None] + grid,
        {"step": np.array(steps, "timedelta64[h]").astype("timedelta64[ns]"), "latitude": np.linspace(90, -90, 5),
         "longitude": np.arange(0, 360, 45.0), "time": np.datetime64("2020-01-01", "ns")},
        ("step", "latitude", "longitude"),
        attrs={"units": "m", **attrs},
    ).to_dataset(name="tp")  # fmt: skip


def read_rain(files, monkeypatch, tmp_path):
    """Reads GRIB files each of which has messages by where their sums begin: (hours of the start, steps, values)."""

    def opened(file):
        parts = files[int(Path(file).stem)]
        attrs = {"GRIB_typeOfLevel": "surface", "GRIB_stepType": "accum"}
        return [summed(steps, values, **attrs, **{STARTS: start}) for start, steps, values in parts]

    for number in range(len(files)):
        (tmp_path / f"{number}.grib").write_bytes(b"GRIB")
    monkeypatch.setattr("domains.climate.data.readers.files._open_grib", opened)
    return open_source([str(tmp_path / f"{number}.grib") for number in range(len(files))])["total_precipitation"]


RAIN = np.array([1.0, 0.5, 2.5, 4.0])
"""mm in four steps of 3 h."""


@pytest.mark.parametrize(
    "files",
    [
        [[(0, [0, 3, 6, 9, 12], [0, 1, 1.5, 4, 8])]],  # since the start, in one file
        [[(0, [3 * n], [RAIN[:n].sum()])] for n in range(1, 5)],  # a file for each step, as ECMWF's open data
        [[(3 * n, [3 * n + 3], [RAIN[n]])] for n in range(4)],  # of each step by itself, as ERA5
        [  # a bucket that is emptied every 6 h beside all since the start, as GFS
            [(0, [3 * n], [RAIN[:n].sum()])] + [(6, [3 * n], [RAIN[2:n].sum()])] * (n > 2) for n in range(1, 5)
        ],
        [[(6, [9, 12], [2.5, 6.5]), (0, [3, 6, 9, 12], [1, 1.5, 4, 8])]],
    ],
)
def test_sums_of_forecasts_become_what_each_step_adds(files, monkeypatch, tmp_path):
    read = read_rain(files, monkeypatch, tmp_path)
    np.testing.assert_allclose(read.values[:, 2, 3], RAIN * 1e-3, rtol=1e-6)
    assert str(read.time.values[-1])[:16] == "2020-01-01T12:00"


def test_means_since_the_start_become_those_of_each_step(monkeypatch, tmp_path):
    (tmp_path / "a.grib").write_bytes(b"GRIB")
    means = np.cumsum(RAIN) / np.arange(1, 5) * 1e3  # of rates in kg m-2 s-1 times 1000
    rate = summed([3, 6, 9, 12], means, **{STARTS: 0}).rename(tp="mtpr")
    rate.mtpr.attrs["units"] = "kg m-2 s-1"
    rate["mtpr"] = rate.mtpr * 1e-6
    rate.mtpr.attrs = {"units": "kg m-2 s-1", STARTS: 0}
    monkeypatch.setattr("domains.climate.data.readers.files._open_grib", lambda file: [rate])
    read = open_source(str(tmp_path / "a.grib"))["mean_total_precipitation_rate"]
    np.testing.assert_allclose(read.values[:, 0, 0], RAIN * 1e-6, rtol=1e-5)


def test_sums_of_a_forecast_in_netcdf_need_bounds(tmp_path):
    """CDS's seasonal forecasts and NetCDF written by cfgrib: nothing tells where sums begin."""
    rain = summed([6, 12], [1, 3], GRIB_stepType="accum").rename(step="forecast_period")
    rain.to_netcdf(tmp_path / "rain.nc")
    with pytest.raises(DataError, match=r"tp \(does not say over which part of the forecast it is summed"):
        open_source(str(tmp_path / "rain.nc"))
    rain["bounds"] = (("forecast_period", "nv"), np.array([[0, 6], [0, 12]], "timedelta64[h]").astype("m8[ns]"))
    rain.forecast_period.attrs["bounds"] = "bounds"
    rain.to_netcdf(tmp_path / "bounds.nc")
    read = open_source(str(tmp_path / "bounds.nc"))["total_precipitation"]
    np.testing.assert_allclose(read.values[:, 0, 0], [1e-3, 2e-3], rtol=1e-6)


def write_sums(eccodes, path, spans):
    """Writes what fell in spans of hours: 1, 2, 3 ... mm in each hour since the start."""
    with path.open("wb") as out:
        for begin, end in spans:
            handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
            keys = {"productDefinitionTemplateNumber": 8, "dataDate": 20240101, "dataTime": 600, "shortName": "tp"}
            for key, value in {**keys, "stepRange": f"{begin}-{end}"}.items():
                eccodes.codes_set(handle, key, value)
            fallen = 1e-3 * sum(range(begin + 1, end + 1))
            eccodes.codes_set_values(handle, np.full(eccodes.codes_get(handle, "numberOfValues"), fallen))
            eccodes.codes_write(handle, out)


@pytest.mark.parametrize(
    "spans",
    [
        [[(0, 1), (0, 2), (0, 3), (0, 4)]],
        [[(0, 1), (1, 2), (2, 3), (3, 4)]],
        [[(0, 1)], [(0, 2)], [(0, 3)], [(0, 4)]],
        [[(0, 1)], [(0, 2)], [(0, 3), (2, 3)], [(0, 4), (2, 4)]],
    ],
)
def test_real_grib_says_where_its_sums_begin(spans, tmp_path):
    eccodes = pytest.importorskip("eccodes")
    pytest.importorskip("cfgrib")
    for number, part in enumerate(spans):
        write_sums(eccodes, tmp_path / f"{number}.grib", part)
    read = open_source(str(tmp_path))["total_precipitation"].values[:, 0, 0]
    np.testing.assert_allclose(read, np.array([1, 2, 3, 4]) * 1e-3, rtol=1e-3)


def test_sums_over_longer_than_the_step_are_refused(tmp_path):
    raw = as_cds(synthetic_source(num_times=40, channels=["t2m"]))
    raw.to_netcdf(tmp_path / "a.nc")
    rain = (raw.t2m[1::2] * 1e-5).assign_attrs(units="m").to_dataset(name="tp")
    rain.to_netcdf(tmp_path / "b.nc")
    config = {"path": [str(tmp_path / "a.nc"), str(tmp_path / "b.nc")], "channels": ["t2m", "tp"]}
    with pytest.raises(DataError, match=r"\(tp\) speaks of 12 h at a time, which do not make up the step of 6 h"):
        prepare(PrepareConfig(out=str(tmp_path / "s.zarr"), step="6h", **config))
    store = ClimateStore.open(prepare(PrepareConfig(out=str(tmp_path / "s.zarr"), allow_gaps=True, **config)))
    assert store.schema.step_hours == 12
    np.testing.assert_allclose(store.read(np.arange(5))[:, 1], rain.tp.values[:5], rtol=1e-6)


def with_bounds(field, hours, times):
    """Returns a mean field at the middle of periods of so many hours that end at some times, as CMIP6 has them."""
    half = np.timedelta64(30 * hours, "m")
    field = field.assign_coords(time=times - half).to_dataset(name="pr")
    field["time_bnds"] = (("time", "bnds"), np.stack([times - 2 * half, times], 1))
    field.time.attrs["bounds"] = "time_bnds"
    return field


def test_means_with_bounds_stand_beside_fields_at_their_ends(tmp_path):
    points = as_cds(synthetic_source(num_times=81, step_hours=3, channels=["t2m"])).isel(time=slice(1, None))
    points.to_netcdf(tmp_path / "tas.nc")
    rates = (points.t2m * 1e-7).assign_attrs(units="kg m-2 s-1")
    with_bounds(rates, 3, points.time.values).to_netcdf(tmp_path / "pr.nc", encoding={"time": {"units": CLOCK}})
    config = {"path": [str(tmp_path / "tas.nc"), str(tmp_path / "pr.nc")], "channels": ["t2m", "mtpr"]}
    store = ClimateStore.open(prepare(PrepareConfig(out=str(tmp_path / "s.zarr"), step="6h", **config)))
    stored = store.read(np.arange(10))
    for number, time in enumerate(store.times[:10]):
        end = int(np.flatnonzero(points.time.values == time)[0])
        np.testing.assert_allclose(stored[number, 0], points.t2m.values[end], rtol=1e-6)
        np.testing.assert_allclose(stored[number, 1], rates.values[end - 1 : end + 1].mean(0), rtol=1e-5)
    alone = open_source(str(tmp_path / "pr.nc"))  # keeps the times that its file has
    assert (alone.time.values == points.time.values - np.timedelta64(90, "m")).all()


def test_a_step_is_counted_from_where_all_fields_are(tmp_path):
    whole = as_cds(synthetic_source(num_times=81, step_hours=3, channels=["t2m", "msl"])).isel(time=slice(1, None))
    whole[["t2m"]].to_netcdf(tmp_path / "a.nc")
    whole[["msl"]].isel(time=slice(1, None, 2)).to_netcdf(tmp_path / "b.nc")
    config = {"path": [str(tmp_path / "a.nc"), str(tmp_path / "b.nc")], "channels": ["t2m", "msl"], "step": "6h"}
    store = ClimateStore.open(prepare(PrepareConfig(out=str(tmp_path / "s.zarr"), **config)))
    np.testing.assert_array_equal(store.times, whole.time.values[1::2].astype("M8[m]"))


def test_other_data_are_not_scored_on_sums_over_another_period(tmp_path, capsys):
    raw = as_cds(synthetic_source(num_times=80, channels=["t2m"]))
    raw["tp"] = (raw.t2m * 1e-5).assign_attrs(units="m")
    raw.to_netcdf(tmp_path / "a.nc")
    longer = raw.isel(time=slice(1, None, 2))
    longer["tp"].values = raw.tp.values[::2] + raw.tp.values[1::2]
    longer.to_netcdf(tmp_path / "b.nc")
    config = {"channels": ["t2m", "tp"], "splits": {"train": 0.5, "valid": 0.25, "test": 0.25}}
    run, other = (
        ClimateStore.open(prepare(PrepareConfig(path=f"{tmp_path}/{n}.nc", out=f"{tmp_path}/{n}.zarr", **config)))
        for n in "ab"
    )
    source = Source.open(str(tmp_path / "b.nc"))
    for states in (
        OtherStates.from_store(other, "b.zarr", run.schema, run.statistics),
        OtherStates.from_source(source, run.schema, run.statistics),
    ):
        fields = states.read(np.arange(4))
        np.testing.assert_array_equal(fields[:, 0], longer.t2m.values[:4])
        assert np.isnan(fields[:, 1]).all()
    says = "has no tp over the run's step of 6 h; what is missing is not scored"
    assert capsys.readouterr().err.count(says) == 2
    same = OtherStates.from_source(Source.open(str(tmp_path / "a.nc")), run.schema, run.statistics)
    np.testing.assert_array_equal(same.read(np.arange(4))[:, 1], raw.tp.values[:4])
    assert "has no" not in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_a_forecast_file_says_over_which_time_it_is_summed(suffix, tmp_path):
    schema = ClimateSchema(("t2m", "tp"), (), (60.0, 0.0, -60.0), (0.0, 90.0, 180.0, 270.0), 6.0)
    file = ForecastFile(tmp_path / f"f{suffix}", schema, 24 * 365.0)
    fields = np.random.default_rng(0).random((2, 1, 2, 3, 4), dtype=np.float32)
    for lead, field in zip((24, 48), fields, strict=True):
        file.append(lead, Prediction({"fields": torch.from_numpy(field)}))
    file.close()
    with xr.open_dataset(file.path, decode_timedelta=False, engine="zarr" if suffix == ".zarr" else None) as written:
        rain, step = written["total_precipitation"], written["prediction_timedelta"]
        assert rain.attrs["cell_methods"] == "prediction_timedelta: sum"
        assert rain.attrs["long_name"] == "Total precipitation (sum over the 6 h before)"
        assert rain.attrs["standard_name"] == "lwe_thickness_of_precipitation_amount"
        bounds = written[step.attrs.get("bounds") or step.encoding["bounds"]]
        assert step.attrs["units"] == "minutes"
        np.testing.assert_array_equal(bounds.values / 60, [[18, 24], [42, 48]])
        assert written["2m_temperature"].attrs["standard_name"] == "air_temperature"
        assert "cell_methods" not in written["2m_temperature"].attrs
    source = Source.open(str(file.path))
    rain = source.fields["total_precipitation"]
    assert (source.times - rain.begins == np.timedelta64(6, "h")).all()
    np.testing.assert_array_equal(rain.read(np.arange(2), np.zeros(1, int))[:, 0], fields[:, 0, 1])
