"""Names and layouts of weather centers that have no attributes of the CF conventions, or odd ones."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.readers import Source, open_source
from domains.climate.data.synthetic import synthetic_source
from sciml.core.errors import DataError
from tests.unit.climate.weather_files import as_cds, canonical

G = 9.80665
SIX_HOURS = np.timedelta64(6, "h").astype("timedelta64[ns]")


@pytest.fixture(scope="module")
def weather():
    return synthetic_source(num_times=12)


@pytest.fixture
def written(tmp_path):
    def read(dataset: xr.Dataset) -> xr.Dataset:
        dataset.to_netcdf(tmp_path / "w.nc")
        return open_source(str(tmp_path / "w.nc"))

    return read


def assert_read(read: xr.Dataset, weather: xr.Dataset, *names: str) -> None:
    for name in names:
        np.testing.assert_allclose(read[name].values, canonical(weather)[name].values, rtol=1e-6)


def plain(weather: xr.Dataset, fields: dict[str, tuple[str, float, dict]]) -> xr.Dataset:
    """Returns fields under other names, divided by a factor, with other attributes and no names by the conventions."""
    cds, out = as_cds(weather), {}
    for name, (ours, divided, attrs) in fields.items():
        array = cds[ours] / divided
        array.attrs = attrs
        out[name] = array
    return xr.Dataset(out)


@pytest.mark.parametrize("name", ["zg", "hgt", "gh"])
def test_heights_without_a_unit_are_meters(weather, written, name):
    """One tenth of the geopotential would be within what is possible, too, and be believed."""
    assert_read(written(plain(weather, {name: ("z", G, {})})), weather, "geopotential")


def test_levels_stand_in_names(weather, written):
    """``wgrib2 -netcdf`` writes one field a level, and so do people who keep channels apart."""
    cds = as_cds(weather)
    alone = {
        "HGT_500mb": cds.z.sel(level=500, drop=True) / G, "z850": cds.z.sel(level=850, drop=True),
        "UGRD_10maboveground": cds.u10, "TMP_2maboveground": cds.t2m, "TMP_500mb": cds.t.sel(level=500, drop=True),
        "temperature_850": cds.t.sel(level=850, drop=True), "u100": cds.u10 + 50.0, "TMP_80maboveground": cds.t2m + 5.0,
    }  # fmt: skip
    alone["HGT_500mb"].attrs["units"] = "gpm"
    read = written(xr.Dataset(alone))
    assert_read(read, weather, "geopotential", "temperature", "2m_temperature", "10m_u_component_of_wind")
    assert "u_component_of_wind" not in read  # u100 is 100 m above the ground


def test_heights_that_are_called_a_geopotential_are_told(weather, tmp_path):
    wrong = as_cds(weather)[["z"]].sel(level=[500])
    wrong["z"] = (wrong.z / G).assign_attrs(units="m**2 s**-2")
    wrong.to_netcdf(tmp_path / "heights.nc")
    with pytest.raises(DataError, match=r"heights\.nc: .*\(z500\).* m2 s-2, outside .*; are these heights in m\?"):
        prepare(PrepareConfig(path=str(tmp_path / "heights.nc"), out=str(tmp_path / "out.zarr")))


def test_geopotential_without_a_unit_stays_as_it_is(weather, written):
    assert_read(written(plain(weather, {"z": ("z", 1.0, {})})), weather, "geopotential")


@pytest.mark.parametrize(
    "fields",
    [
        {"hgtprs": ("z", G, {}), "tmpprs": ("t", 1, {}), "tmp2m": ("t2m", 1, {}), "ugrd10m": ("u10", 1, {})},
        {"hgt-pres-an-ll125": ("z", G, {"units": "gpm"}), "tmp-pres-an-ll125": ("t", 1, {"units": "K"}),
         "tmp2m-hgt-an-gauss": ("t2m", 1, {"units": "K"}), "ugrd10m-hgt-an-gauss": ("u10", 1, {"units": "m s-1"})},
        {"Geopotential_height_isobaric": ("z", G, {"units": "gpm", "abbreviation": "HGT"}),
         "Temperature_isobaric": ("t", 1, {"units": "K", "abbreviation": "TMP"}),
         "tmp2m": ("t2m", 1, {"units": "K"}), "U10M": ("u10", 1, {"units": "m s-1"})},
        {"H": ("z", G, {"units": "m", "standard_name": "edge_heights"}), "T": ("t", 1, {"units": "K"}),
         "T2M": ("t2m", 1, {"units": "K"}), "U10M": ("u10", 1, {"units": "m s-1"})},
    ],
    ids=["nomads", "jra3q", "thredds", "merra2"],
)  # fmt: skip
def test_names_of_centers(weather, written, fields):
    names = ("geopotential", "temperature", "2m_temperature", "10m_u_component_of_wind")
    assert_read(written(plain(weather, fields)), weather, *names)


def test_a_height_in_words(weather, tmp_path):
    attrs = {"units": "degK", "standard_name": "air_temperature", "level_desc": "2 m"}
    plain(weather, {"air": ("t2m", 1, attrs)}).to_netcdf(tmp_path / "air.2m.nc")
    assert Source.open(str(tmp_path / "air.2m.nc")).channel_names() == ["t2m"]


@pytest.mark.parametrize("as_coordinate", [True, False])
@pytest.mark.parametrize("name", ["time", "valid_time"])
def test_times_along_a_dimension_of_another_name(weather, written, name, as_coordinate):
    """Rows turned around, too: nothing is taken by position."""
    turned = weather[["2m_temperature"]].rename(time="record").isel(record=slice(None, None, -1))
    records = turned.reset_index("record").rename_vars(record=name)
    assert records["2m_temperature"].dims[0] == "record"
    assert_read(written(records if as_coordinate else records.reset_coords(name)), weather, "2m_temperature")


def forecasts(weather: xr.Dataset, starts: tuple[int, ...], leads: int, **names: str) -> xr.Dataset:
    """Returns forecasts that become true, as WeatherBench has them: start, lead time."""
    fields = as_cds(weather[["2m_temperature"]]).t2m
    stacked = np.stack([fields.values[start : start + leads] for start in starts])
    first, second = names.get("init", "time"), names.get("lead", "prediction_timedelta")
    coords = {first: fields.time.values[list(starts)], second: np.arange(leads) * SIX_HOURS}
    grid = {dim: fields[dim] for dim in ("latitude", "longitude")}
    return xr.Dataset({"t2m": ((first, second, *grid), stacked, {"units": "K"})}, {**coords, **grid})


@pytest.mark.parametrize("names", [{}, {"init": "init_time", "lead": "lead_time"}, {"init": "initial_time"}])
def test_forecasts_that_follow_one_another(weather, written, names):
    assert_read(written(forecasts(weather, (0, 4, 8), 4, **names)), weather, "2m_temperature")


def test_forecasts_that_overlap_are_told_from_times_that_are_there_twice(weather, tmp_path):
    (forecasts(weather, (0, 2, 4), 6) + 0.1 * np.arange(6)[:, None, None]).to_netcdf(tmp_path / "w.nc")
    with pytest.raises(
        DataError,
        match=r"w\.nc: several forecasts have 2m_temperature at 2001-01-01T12:00; keep one lead time, or forecasts "
        r"that do not overlap",
    ):
        open_source(str(tmp_path / "w.nc"))


@pytest.mark.parametrize("dim", ["ensemble_member", "ens", "sample"])
def test_members_under_other_names(weather, tmp_path, dim):
    field = as_cds(weather[["2m_temperature"]])
    xr.concat([field, field + 1], dim).to_netcdf(tmp_path / "w.nc")
    read = open_source(str(tmp_path / "w.nc"), member=1)
    np.testing.assert_allclose(read["2m_temperature"], canonical(weather)["2m_temperature"] + 1, rtol=1e-6)


@pytest.mark.parametrize("levels", [[500, 850], [850]])
def test_a_height_of_one_entry_beside_the_levels(weather, written, levels):
    """As ``expand_dims`` and some converters leave it; it had ended in a traceback of the library."""
    some = weather[["geopotential", "2m_temperature"]].sel(level=levels)
    high = some.expand_dims(height=xr.Variable("height", [2.0], {"units": "m", "positive": "up"}))
    plev = high.rename(level="plev").assign_coords(level=xr.Variable((), 0.0, {"units": "m"}))
    for dataset in (high, plev):
        assert_read(written(dataset), weather.sel(level=levels), "geopotential", "2m_temperature")


def test_two_vertical_dimensions_are_refused(weather, tmp_path):
    field = weather[["geopotential"]].expand_dims(height=xr.Variable("height", [2.0, 10.0, 50.0], {"units": "m"}))
    field.to_netcdf(tmp_path / "w.nc")
    with pytest.raises(DataError, match=r"w\.nc: .*height"):
        Source.open(str(tmp_path / "w.nc"))
