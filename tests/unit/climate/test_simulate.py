"""The simulated archive and the ERA5 week that are committed, and the command behind the first."""

from __future__ import annotations

import dataclasses
import lzma
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from domains.climate.simulation import archive_encoding
from domains.climate.simulation.held_suarez import LEVEL_VARIABLES, SURFACE_VARIABLES
from domains.climate.simulation.simulate import SimulateConfig, simulate
from sciml.core.config import build
from sciml.core.errors import ConfigError, MissingExtraError, RunError

DATA = Path(__file__).parents[3] / "data" / "climate"
ARCHIVE, ERA5_WEEK = DATA / "simulated_archive.zarr", DATA / "era5_week.nc"
UNITS = {
    "geopotential": "m**2 s**-2",
    "temperature": "K",
    "u_component_of_wind": "m s**-1",
    "v_component_of_wind": "m s**-1",
    "2m_temperature": "K",
    "mean_sea_level_pressure": "Pa",
    "10m_u_component_of_wind": "m s**-1",
    "10m_v_component_of_wind": "m s**-1",
}
PLAUSIBLE = {
    "geopotential": (8e3, 1.1e5),
    "temperature": (180, 320),
    "u_component_of_wind": (-90, 110),
    "v_component_of_wind": (-90, 90),
    "2m_temperature": (230, 330),
    "mean_sea_level_pressure": (90e3, 107e3),
    "10m_u_component_of_wind": (-45, 45),
    "10m_v_component_of_wind": (-45, 45),
}
MEBIBYTE = 2**20
LATITUDE = 90 - 5.625 * (np.arange(32) + 0.5)
LONGITUDE = 5.625 * np.arange(64)


@pytest.fixture(scope="module")
def archive():
    with xr.open_zarr(ARCHIVE) as dataset:
        yield dataset.load()


class TestArchive:
    def test_is_small_and_few_files(self):
        files = [path for path in ARCHIVE.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) <= 15 * MEBIBYTE
        assert len(files) <= 100

    def test_says_that_it_is_a_simulation(self, archive):
        assert "simulation" in archive.title.lower()
        assert "not ERA5" in archive.title
        assert "dinosaur" in archive.source
        assert "simulate.py" in archive.history

    def test_variables_units_and_dimensions(self, archive):
        assert set(archive.data_vars) == set(UNITS)
        for name, unit in UNITS.items():
            assert archive[name].units == unit
            assert archive[name].standard_name
            assert archive[name].dtype == np.float32
            level = ("level",) if name in LEVEL_VARIABLES else ()
            assert archive[name].dims == ("time", *level, "latitude", "longitude")

    def test_grid_and_levels(self, archive):
        np.testing.assert_allclose(archive.latitude, LATITUDE)
        np.testing.assert_allclose(archive.longitude, LONGITUDE)
        assert archive.level.values.tolist() == [250, 500, 850]

    def test_at_least_a_year_without_gaps(self, archive):
        assert (np.diff(archive.time.values) == np.timedelta64(12, "h")).all()
        assert archive.sizes["time"] >= 2 * 365

    @pytest.mark.parametrize("name", UNITS)
    def test_values_are_finite_and_plausible(self, archive, name):
        low, high = PLAUSIBLE[name]
        assert np.isfinite(archive[name]).all()
        assert low < archive[name].min() < archive[name].max() < high

    @pytest.mark.parametrize("name", UNITS)
    def test_no_time_is_repeated(self, archive, name):
        assert (archive[name].diff("time").std([d for d in archive[name].dims if d != "time"]) > 0).all()

    def test_level_means_rise_and_cool(self, archive):
        means = archive[["geopotential", "temperature"]].mean(("time", "latitude", "longitude"))
        assert (means.geopotential.diff("level") < 0).all()
        assert (means.temperature.diff("level") > 0).all()

    def test_wind_balances_the_pressure_field(self, archive):
        """In middle latitudes the zonal mean wind is the geostrophic one within a tenth."""
        mean = archive[["geopotential", "u_component_of_wind"]].mean(("time", "longitude")).sel(level=250)
        phi = np.deg2rad(mean.latitude)
        slope = mean.geopotential.differentiate("latitude") * 180 / np.pi
        geostrophic = -slope / (2 * 7.292e-5 * np.sin(phi) * 6.371e6)
        middle = (abs(mean.latitude) > 25) & (abs(mean.latitude) < 65)
        error = (geostrophic - mean.u_component_of_wind).where(middle)
        assert float(np.sqrt((error**2).mean())) < 0.1 * float(mean.u_component_of_wind.where(middle).max())


class TestEra5Week:
    @pytest.fixture
    def week(self):
        with xr.open_dataset(ERA5_WEEK) as dataset:
            yield dataset.load()

    def test_is_small(self):
        assert ERA5_WEEK.stat().st_size <= 2 * MEBIBYTE

    def test_keeps_source_and_license(self, week):
        assert "ERA5" in week.title
        assert "Copernicus" in week.source
        assert "CC-BY 4.0" in week.license

    def test_shares_the_grid_of_the_archive(self, week):
        np.testing.assert_allclose(week.latitude, LATITUDE)
        np.testing.assert_allclose(week.longitude, LONGITUDE)

    def test_names_units_and_values(self, week):
        assert {name: field.units for name, field in week.items()} == {
            "t2m": "K", "u10": "m s**-1", "v10": "m s**-1", "msl": "Pa", "tp": "m",
        }  # fmt: skip
        assert all(np.isfinite(field).all() for field in week.values())
        assert 200 < week.t2m.min() < week.t2m.max() < 320
        assert week.tp.min() == 0
        assert week.sizes["time"] == 24

    def test_times_are_seven_or_eight_hours_apart(self, week):
        hours = np.diff(week.time.values) / np.timedelta64(1, "h")
        assert set(hours.tolist()) == {7.0, 8.0}


class TestRounding:
    def test_multiples_of_the_step_come_back_exactly(self, tmp_path, archive):
        piece = archive.isel(time=slice(0, 4))
        piece.to_zarr(tmp_path / "piece", zarr_format=2, encoding=archive_encoding.encoding(piece))
        with xr.open_zarr(tmp_path / "piece") as again:
            xr.testing.assert_equal(again.load(), piece)

    @pytest.mark.parametrize("name", UNITS)
    def test_error_is_at_most_half_a_step(self, name):
        levels = np.array([250, 500, 850]) if name in LEVEL_VARIABLES else None
        low, high = PLAUSIBLE[name]
        shape = (4, 3, 8, 16) if levels is not None else (4, 8, 16)
        values = np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)
        error = np.abs(archive_encoding.round_to_step(name, values, levels) - values)
        limit = archive_encoding.steps(name, levels) / 2
        assert (error <= limit * 1.001 + np.spacing(np.float32(high))).all()

    def test_a_value_out_of_range_is_refused(self):
        with pytest.raises(RunError, match="v_component_of_wind"):
            archive_encoding.round_to_step("v_component_of_wind", np.full((1, 1, 2, 2), 200.0), np.array([850]))

    def test_a_damaged_chunk_is_an_error(self, tmp_path, archive):
        archive[["2m_temperature"]].isel(time=slice(0, 4)).to_zarr(
            tmp_path / "piece", zarr_format=2, encoding=archive_encoding.encoding(archive[["2m_temperature"]])
        )
        chunk = tmp_path / "piece" / "2m_temperature" / "0.0.0"
        damaged = bytearray(chunk.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        chunk.write_bytes(damaged)
        with xr.open_zarr(tmp_path / "piece") as piece, pytest.raises((RuntimeError, lzma.LZMAError)):
            piece.load()


class TestConfig:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("days", 0),
            ("spinup_days", -1),
            ("seed", -1),
            ("interval_hours", 7),
            ("interval_hours", 0),
            ("truncation", "T20"),
            ("num_layers", 1),
            ("pressure_levels", ()),
            ("pressure_levels", (850, 500)),
            ("pressure_levels", (500, 925)),
            ("pressure_levels", (10, 500)),
            ("start", "yesterday"),
        ],
    )
    def test_a_value_that_cannot_work_is_named(self, field, value):
        with pytest.raises(ConfigError) as caught:
            build(SimulateConfig, {field: value})
        assert caught.value.key.split(".")[0] == field
        assert caught.value.hint or "must be one of" in caught.value.message

    def test_a_store_is_not_replaced_unasked(self, tmp_path):
        (tmp_path / "there.zarr").mkdir()
        with pytest.raises(ConfigError, match="overwrite=true"):
            simulate(SimulateConfig(out=str(tmp_path / "there.zarr")))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    pytest.importorskip("dinosaur", reason="the simulation is the optional extra 'simulate'")
    out = tmp_path_factory.mktemp("simulate") / "archive.zarr"
    return SimulateConfig(out=str(out), days=1, spinup_days=0, interval_hours=6, num_layers=8)


@pytest.fixture(scope="module")
def store(config):
    return simulate(config)


class TestSimulate:
    """Four times of a young atmosphere; everything but the weather is as in the real archive."""

    def test_layout(self, store, archive):
        with xr.open_zarr(store) as dataset:
            assert set(dataset.data_vars) == {*LEVEL_VARIABLES, *SURFACE_VARIABLES}
            assert dict(dataset.sizes) == {**archive.sizes, "time": 4}
            assert "simulation" in dataset.title.lower()
            assert (np.diff(dataset.time) == np.timedelta64(6, "h")).all()
            assert np.isfinite(dataset.to_array()).all()

    def test_leaves_nothing_else(self, store):
        assert list(store.parent.iterdir()) == [store]

    def test_same_seed_same_weather_other_seed_other_weather(self, config, store, tmp_path):
        again = simulate(dataclasses.replace(config, out=str(tmp_path / "again.zarr")))
        other = simulate(dataclasses.replace(config, out=str(tmp_path / "other.zarr"), seed=1))
        with xr.open_zarr(store) as first, xr.open_zarr(again) as second, xr.open_zarr(other) as third:
            xr.testing.assert_identical(first.load(), second.load().assign_attrs(first.attrs))
            assert not first.equals(third.load())

    def test_without_dinosaur_the_extra_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "dinosaur", None)
        with pytest.raises(MissingExtraError, match=r"\[simulate\]"):
            simulate(SimulateConfig(out=str(tmp_path / "archive.zarr")))
