import shutil
from pathlib import Path

import fsspec
import netCDF4
import numpy as np
import pytest
import xarray as xr
from weather_files import as_cds, canonical, write_cds_new, write_cds_old, write_wb2

from domains.climate.data.readers import Source, open_source
from domains.climate.data.synthetic import synthetic_source
from sciml.core.errors import ConfigError, DataError, MissingExtraError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "era5"


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return synthetic_source(num_times=12)


def assert_same(read: xr.Dataset, weather: xr.Dataset, rtol: float = 1e-6, names: list[str] | None = None) -> None:
    expected = canonical(weather)
    for dim in ("time", "latitude", "longitude"):
        np.testing.assert_allclose(read[dim].astype(float), expected[dim].astype(float), rtol=1e-12, atol=1e-12)
    for name in names or list(map(str, expected.data_vars)):
        assert read[name].dims == expected[name].dims
        assert read[name].dtype == np.float32
        spread = float(expected[name].std())
        np.testing.assert_allclose(read[name].values, expected[name].values, rtol=1e-6, atol=rtol * spread)


def test_cds_with_new_names(weather, tmp_path):
    read = open_source(str(write_cds_new(weather, tmp_path / "new.nc")))
    assert_same(read, weather)
    assert list(read.level.values) == [500, 850]


def test_cds_with_old_names_packed_integers_and_longitudes_from_the_date_line(weather, tmp_path):
    # half a packing step of 1/65000 of the range
    assert_same(open_source(str(write_cds_old(weather, tmp_path / "old.nc"))), weather, rtol=1e-4)


def test_weatherbench_in_either_direction_of_latitude(weather, tmp_path):
    assert_same(open_source(str(write_wb2(weather, tmp_path / "up.zarr"))), weather)
    down = weather.isel(latitude=slice(None, None, -1))
    assert_same(open_source(str(write_wb2(down, tmp_path / "down.zarr"))), weather)


def test_reading_is_lazy_and_any_index_works(weather, tmp_path, monkeypatch):
    read = open_source(str(write_wb2(weather, tmp_path / "w.zarr")))
    from domains.climate.data.readers.field import FieldPiece

    asked = []
    original = FieldPiece.read
    monkeypatch.setattr(FieldPiece, "read", lambda self, t, lv: asked.append(len(t)) or original(self, t, lv))
    expected = canonical(weather)["geopotential"]
    part = {"time": [7, 2], "level": 1, "latitude": slice(1, 5), "longitude": [3, 0]}
    np.testing.assert_array_equal(read["geopotential"].isel(part).values, expected.isel(part).values)
    assert asked == [2]
    np.testing.assert_array_equal(
        read["2m_temperature"][3, 2:4, 5].values, canonical(weather)["2m_temperature"][3, 2:4, 5]
    )


def test_several_files_by_time_and_by_variable_become_one(weather, tmp_path):
    at_surface = ["2m_temperature", "10m_u_component_of_wind"]
    surface, levels = weather[at_surface], weather.drop_vars(at_surface)
    write_cds_new(surface.isel(time=slice(6, 12)), tmp_path / "a_surface.nc")  # not in order of time
    write_cds_new(surface.isel(time=slice(0, 6)), tmp_path / "b_surface.nc")
    write_cds_old(levels.sel(level=[850]), tmp_path / "c_850.nc")
    write_cds_new(levels.sel(level=[500]), tmp_path / "d_500.nc")
    for path in (str(tmp_path), str(tmp_path / "*.nc"), [str(file) for file in tmp_path.iterdir()]):
        assert_same(open_source(path), weather, rtol=1e-4)


def test_one_level_without_a_dimension(weather, tmp_path):
    as_cds(weather[["temperature"]].sel(level=850)).to_netcdf(tmp_path / "t850.nc")
    read = Source.open(str(tmp_path / "t850.nc"))
    assert read.fields["temperature"].levels == (850,)
    np.testing.assert_array_equal(
        read.to_dataset().temperature.values[:, 0], canonical(weather).temperature.sel(level=850).values
    )


def test_preliminary_data_fill_the_final(weather, tmp_path):
    cds = as_cds(weather[["2m_temperature"]])
    final, preliminary = cds.where(cds.time < cds.time[8]), cds.where(cds.time >= cds.time[8])
    both = xr.concat([final, preliminary], xr.Variable("expver", [1, 5])).transpose("time", "expver", ...)
    both.to_netcdf(tmp_path / "expver.nc")
    assert_same(open_source(str(tmp_path / "expver.nc")), weather, names=["2m_temperature"])


def test_an_ensemble_gives_the_member_that_is_asked_for(weather, tmp_path):
    cds = as_cds(weather[["2m_temperature"]])
    xr.concat([cds, cds + 1], xr.Variable("number", [0, 1])).to_netcdf(tmp_path / "members.nc")
    read = open_source(str(tmp_path / "members.nc"), member=1)
    np.testing.assert_allclose(read["2m_temperature"], canonical(weather)["2m_temperature"] + 1, rtol=1e-6)
    assert "member 1 of 2" in read.title
    with pytest.raises(DataError, match=r"members\.nc: there is no ensemble member 2; it has 0 to 1"):
        open_source(str(tmp_path / "members.nc"), member=2)


def test_forecast_steps_add_to_the_time(weather, tmp_path):
    # as cfgrib gives accumulations: reference time x step
    field = as_cds(weather[["2m_temperature"]]).t2m
    stepped = xr.DataArray(
        field.values.reshape(6, 2, *field.shape[1:]),
        dims=("time", "step", "latitude", "longitude"),
        coords={"time": field.time.values[::2], "step": np.array([0, 6], "timedelta64[h]").astype("timedelta64[ns]"),
                "latitude": field.latitude.values, "longitude": field.longitude.values},
    )  # fmt: skip
    stepped.to_dataset(name="t2m").to_netcdf(tmp_path / "steps.nc")
    assert_same(open_source(str(tmp_path / "steps.nc")), weather, names=["2m_temperature"])


def test_units_are_converted(weather, tmp_path):
    cds = as_cds(weather[["2m_temperature", "geopotential"]])
    cds["t2m"] = (cds.t2m - 273.15).assign_attrs(units="degC")
    cds["z"] = (cds.z / 9.80665).assign_attrs(units="m")
    cds.to_netcdf(tmp_path / "units.nc")
    assert_same(open_source(str(tmp_path / "units.nc")), weather, rtol=1e-4, names=["2m_temperature", "geopotential"])


def test_statics_and_surface_geopotential(weather, tmp_path):
    cds = as_cds(weather[["2m_temperature"]])
    mask = xr.zeros_like(cds.t2m).assign_attrs(units="(0 - 1)") + 0.25
    cds["lsm"], cds["z"] = mask, mask.assign_attrs(units="m**2 s**-2") * 4000
    cds.to_netcdf(tmp_path / "statics.nc")
    read = open_source(str(tmp_path / "statics.nc"))
    assert read["land_sea_mask"].dims == ("latitude", "longitude")
    assert float(read["land_sea_mask"].mean()) == 0.25
    assert float(read["geopotential_at_surface"].mean()) == 1000.0


def test_a_repeated_meridian_is_dropped(weather, tmp_path):
    cds = as_cds(weather[["2m_temperature"]])
    again = cds.isel(longitude=[0]).assign_coords(longitude=[360.0])
    xr.concat([cds, again], "longitude").to_netcdf(tmp_path / "wrapped.nc")
    assert_same(open_source(str(tmp_path / "wrapped.nc")), weather, names=["2m_temperature"])


@pytest.mark.parametrize("kind", ["zarr", "netcdf"])
def test_a_remote_source(weather, tmp_path, kind):
    memory = fsspec.filesystem("memory")
    if kind == "zarr":
        memory.put(str(write_wb2(weather, tmp_path / "w.zarr")), "/bucket/w.zarr", recursive=True)
    else:
        memory.put(str(write_cds_new(weather, tmp_path / "w.nc")), "/bucket/w.nc")
    try:
        assert_same(open_source(f"memory://bucket/w.{'zarr' if kind == 'zarr' else 'nc'}"), weather)
    finally:
        memory.rm("/bucket", recursive=True)


def test_cloud_storage_without_its_package_names_the_extra(monkeypatch):
    def missing(protocol):
        raise ImportError(protocol)

    monkeypatch.setattr(fsspec, "filesystem", missing)
    for url, package in (("gs://bucket/era5.zarr", "gcsfs"), ("s3://bucket/era5.nc", "s3fs")):
        with pytest.raises(MissingExtraError, match=rf"{package} is needed to read {url}.*\[cloud\]"):
            open_source(url)


def test_grib_without_its_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cfgrib", None)
    (tmp_path / "era5.grib").write_bytes(b"GRIB" + bytes(3) + b"\x01")
    with pytest.raises(MissingExtraError, match=r"cfgrib is needed to read .*era5\.grib.*\[grib\]"):
        open_source(str(tmp_path / "era5.grib"))


def test_real_grib():
    pytest.importorskip("cfgrib")
    file = SHARED / "era5-levels-members.grib"
    if not file.exists():
        pytest.skip("the real GRIB file is not here")
    read = open_source(str(file), member=3)
    assert dict(read.sizes) == {"time": 4, "level": 2, "latitude": 61, "longitude": 120}
    assert "ensemble member 3 of 10" in read.title
    import cfgrib

    raw = next(d for d in cfgrib.open_datasets(str(file), backend_kwargs={"indexpath": ""}) if "z" in d)
    expected = raw.z.sel(number=3, isobaricInhPa=500).values
    np.testing.assert_allclose(read.geopotential.sel(level=500), expected, rtol=1e-6)
    assert 4.8e4 < float(read.geopotential.sel(level=500).mean()) < 5.8e4


def test_real_era5_week():
    file = SHARED / "era5_surface_week_1deg.nc"
    if not file.exists():
        pytest.skip("the real ERA5 week is not here")
    read = open_source(str(file))
    with xr.open_dataset(file) as raw:
        np.testing.assert_allclose(read["2m_temperature"], raw.t2m, rtol=1e-6)
        np.testing.assert_allclose(read["mean_sea_level_pressure"], raw.msl, rtol=1e-6)


# -- bad input: one sentence that names file, variable and time ------------------------------------------------


def test_a_missing_file_offers_the_nearest(weather, tmp_path):
    write_cds_new(weather, tmp_path / "era5_2020.nc")
    with pytest.raises(DataError, match=r"era5_2021\.nc: no such file or folder; did you mean 'era5_2020\.nc'\?"):
        open_source(str(tmp_path / "era5_2021.nc"))
    with pytest.raises(DataError, match="there is no folder"):
        open_source(str(tmp_path / "nowhere" / "era5.nc"))
    with pytest.raises(DataError, match="no file matches"):
        open_source(str(tmp_path / "*.grib"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no NetCDF, GRIB or zarr data"):
        open_source(str(tmp_path / "empty"))


@pytest.mark.parametrize("share", [0.001, 0.5, 0.97])
def test_a_truncated_file(weather, tmp_path, share):
    file = write_cds_new(weather, tmp_path / "cut.nc")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"cut\.nc: .*damaged"):
        open_source(str(file)).load()


def write_classic(dataset: xr.Dataset, file: Path, kind: str, unlimited: list[str]) -> None:
    dataset.to_netcdf(file.with_suffix(".4"), unlimited_dims=unlimited)
    with netCDF4.Dataset(file.with_suffix(".4")) as new, netCDF4.Dataset(file, "w", format=kind) as old:
        for name, dim in new.dimensions.items():
            old.createDimension(name, None if dim.isunlimited() else len(dim))
        for name, variable in new.variables.items():
            dtype = "i4" if variable.dtype.kind == "i" else variable.dtype
            copy = old.createVariable(name, dtype, variable.dimensions)
            copy.setncatts({key: variable.getncattr(key) for key in variable.ncattrs() if key != "_FillValue"})
            copy[:] = variable[:]


@pytest.mark.parametrize("unlimited", [[], ["time"]])
@pytest.mark.parametrize("kind", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF3_64BIT_DATA"])
def test_a_truncated_classic_file_which_the_library_would_read_as_zeros(weather, tmp_path, kind, unlimited):
    file = tmp_path / "cut.nc"
    write_classic(as_cds(weather), file, kind, unlimited)
    assert_same(open_source(str(file)), weather)
    content = file.read_bytes()
    for size in (len(content) - 4, len(content) // 2, 100):
        file.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"cut\.nc: .*damaged"):
            open_source(str(file)).load()


def test_a_corrupted_piece_of_zarr_names_variable_and_time(weather, tmp_path):
    store = write_wb2(weather, tmp_path / "w.zarr")
    for chunk in (store / "geopotential").glob("[0-9]*"):
        chunk.write_bytes(b"nonsense")
    read = open_source(str(store))
    with pytest.raises(DataError, match=r"w\.zarr: geopotential at 2001-01-01T12:00 cannot be read.*damaged"):
        read.geopotential.isel(time=slice(2, 4)).load()


def test_zarr_without_metadata(weather, tmp_path):
    store = write_wb2(weather, tmp_path / "w.zarr")
    for name in (".zmetadata", ".zgroup"):
        (store / name).unlink()
    for array in store.iterdir():
        shutil.rmtree(array) if array.is_dir() else array.unlink()
    with pytest.raises(DataError, match=r"w\.zarr: "):
        open_source(str(store))


def test_not_a_data_file(tmp_path):
    (tmp_path / "notes.nc").write_text("these are notes")
    with pytest.raises(DataError, match=r"notes\.nc: cannot be opened, it is damaged or no NetCDF"):
        open_source(str(tmp_path / "notes.nc"))


def test_a_missing_variable_offers_the_nearest(weather, tmp_path):
    source = Source.open(str(write_cds_new(weather, tmp_path / "w.nc")))
    with pytest.raises(DataError, match=r"w\.nc: no variable 10m_v_component_of_wind; did you mean '10m_u_component"):
        source.field("v10")
    with pytest.raises(ConfigError, match="did you mean 'geopotential'"):
        source.field("geopotental")


def test_no_known_variable(tmp_path):
    xr.Dataset(
        {"foo": (("latitude", "longitude"), np.zeros((3, 4)))},
        {"latitude": [90, 0, -90], "longitude": [0, 90, 180, 270]},
    ).to_netcdf(tmp_path / "foo.nc")
    with pytest.raises(DataError, match=r"foo\.nc: no variable that is known here; found foo"):
        open_source(str(tmp_path / "foo.nc"))


def test_a_wrong_unit(weather, tmp_path):
    cds = as_cds(weather[["2m_temperature"]])
    cds.t2m.attrs["units"] = "furlong"
    cds.to_netcdf(tmp_path / "unit.nc")
    with pytest.raises(DataError, match=r"unit\.nc: 2m_temperature is in 'furlong'.*accepted are K"):
        open_source(str(tmp_path / "unit.nc"))


def test_duplicate_times(weather, tmp_path):
    double = weather.isel(time=[0, 1, 2, 2, 3])
    double["2m_temperature"][3] += 1.0
    with pytest.raises(DataError, match=r"w\.nc: .* at 2001-01-01T12:00 is there twice"):
        open_source(str(write_cds_new(double, tmp_path / "w.nc")))
    write_cds_new(weather.isel(time=slice(0, 5)), tmp_path / "first.nc")
    second = weather.isel(time=slice(4, 8)).copy(deep=True)
    second["2m_temperature"][0, 0, 0] += 1.0
    write_cds_new(second, tmp_path / "second.nc")
    with pytest.raises(DataError, match=r"first\.nc and .*second\.nc: .* at 2001-01-02T00:00 is there twice"):
        open_source([str(tmp_path / "first.nc"), str(tmp_path / "second.nc")])


def test_files_may_overlap_where_their_values_are_the_same(weather, tmp_path):
    weather = weather.copy(deep=True)
    weather["2m_temperature"][4, 0, 0] = np.nan  # a gap is the same as a gap
    write_cds_new(weather.isel(time=slice(0, 6)), tmp_path / "first.nc")
    write_cds_new(weather.isel(time=[3, 4, 4, 5, 6, 7]), tmp_path / "second.nc")
    read = open_source([str(tmp_path / name) for name in ("first.nc", "second.nc", "first.nc")])
    expected = canonical(weather.isel(time=slice(0, 8)))
    assert read.sizes["time"] == 8
    for name in expected.data_vars:
        np.testing.assert_allclose(read[name].values, expected[name].values, rtol=1e-6)


def test_different_grids(weather, tmp_path):
    write_cds_new(weather, tmp_path / "a.nc")
    write_cds_new(synthetic_source(num_times=4, grid="32x16", start="2002-01-01"), tmp_path / "b.nc")
    with pytest.raises(DataError, match=r"a\.nc and .*b\.nc: .* different grids"):
        open_source(str(tmp_path))


def test_times_that_cannot_be_understood(weather, tmp_path):
    cds = as_cds(weather[["2m_temperature"]])
    cds.assign_coords(time=np.arange(12)).to_netcdf(tmp_path / "numbers.nc")
    with pytest.raises(DataError, match=r"numbers\.nc: the times are plain numbers"):
        open_source(str(tmp_path / "numbers.nc"))


def test_no_grid_or_a_strange_dimension(weather, tmp_path):
    weather["2m_temperature"].isel(latitude=0).drop_vars("latitude").to_netcdf(tmp_path / "line.nc")
    with pytest.raises(DataError, match=r"line\.nc: no latitude"):
        open_source(str(tmp_path / "line.nc"))
    cds = as_cds(weather[["2m_temperature"]])
    xr.concat([cds, cds], "quantile").to_netcdf(tmp_path / "strange.nc")
    with pytest.raises(DataError, match=r"strange\.nc: 2m_temperature has a dimension 'quantile' of 2"):
        open_source(str(tmp_path / "strange.nc"))
