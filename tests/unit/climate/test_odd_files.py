"""Data as they come: damaged, packed together, on odd levels, with names that only conventions explain."""

import struct
import zipfile

import numpy as np
import pytest
import xarray as xr

from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.readers import Source, open_source
from domains.climate.data.readers.canonical import orient
from domains.climate.data.readers.grib_messages import check_messages
from domains.climate.data.readers.vertical import vertical_of
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from domains.climate.data.variables import of_standard_name
from domains.climate.data.vocabulary import VARIABLES
from sciml.core.errors import DataError
from tests.unit.climate.weather_files import as_cds, canonical, write_cds_new, write_wb2

HYBRID = "atmosphere_hybrid_sigma_pressure_coordinate"


@pytest.fixture(scope="module")
def weather():
    return synthetic_source(num_times=12)


def message(edition, size):
    """Returns the frame of a GRIB message of so many bytes."""
    if edition == 2:
        return b"GRIB" + bytes(3) + b"\x02" + struct.pack(">Q", size) + bytes(size - 20) + b"7777"
    return b"GRIB" + size.to_bytes(3, "big") + b"\x01" + bytes(size - 12) + b"7777"


# -- GRIB ---------------------------------------------------------------------------------------------------------


def test_a_whole_grib_file_passes(tmp_path):
    file = tmp_path / "whole.grib"
    file.write_bytes(message(1, 100) + message(2, 64) + b"\n\0\0" + message(1, 44) + b"\0" * 20)
    check_messages(str(file))


@pytest.mark.parametrize("size", [99, 120, 165])
def test_a_truncated_grib_file_names_the_byte(tmp_path, size):
    file = tmp_path / "cut.grib"
    file.write_bytes((message(1, 100) + message(2, 66))[:size])
    number, begin, end = (1, 0, 100) if size < 100 else (2, 100, 166)
    with pytest.raises(
        DataError,
        match=rf"cut\.grib: is damaged, it was cut off at byte {size}: message {number} begins at byte {begin} and "
        rf"ends at byte {end}; download it again",
    ):
        check_messages(str(file))


def test_a_grib_file_damaged_within(tmp_path):
    file = tmp_path / "hole.grib"
    content = bytearray(message(1, 100) + message(2, 66))
    content[96:100] = b"abcd"
    file.write_bytes(content)
    with pytest.raises(DataError, match="message 1 from byte 0 does not end at byte 100 as it says"):
        check_messages(str(file))
    file.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        check_messages(str(file))
    file.write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match="has no message"):
        check_messages(str(file))


def test_long_messages_of_edition_1_count_in_120_bytes(tmp_path):
    """Source of the convention: ecCodes. A message of 120 n bytes less 20 says n units, and 24 in its data section."""
    units, missing = 80_000, 20
    total = 120 * units - missing
    product = (8).to_bytes(3, "big") + b"\0\0\0\0" + b"\0"  # neither grid nor bitmap follows
    data = (missing + 4).to_bytes(3, "big")
    head = b"GRIB" + (0x800000 | units).to_bytes(3, "big") + b"\x01" + product + data
    file = tmp_path / "long.grib"
    file.write_bytes(head + bytes(total - len(head) - 4) + b"7777")
    check_messages(str(file))


def grib_like(name, type_of_level, level, *, short=None, units="K", value=280.0):
    """Returns a field as cfgrib gives it: one variable on one type of level."""
    grid = {"latitude": np.linspace(90, -90, 5), "longitude": np.arange(0, 360, 45.0)}
    shape = (3, *([len(level)] if isinstance(level, list) else []), 5, 8)
    dims = ("time", *([type_of_level] if isinstance(level, list) else []), "latitude", "longitude")
    attrs = {"GRIB_typeOfLevel": type_of_level, "GRIB_shortName": short or name, "units": units}
    values = value + np.arange(3.0).reshape(3, *[1] * (len(shape) - 1)) + np.zeros(shape)
    coords = {**grid, "time": np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")}
    return xr.DataArray(values, coords | {type_of_level: level}, dims, attrs=attrs).to_dataset(name=name)


def test_fields_on_other_types_of_level_do_not_refuse_a_file(monkeypatch, tmp_path):
    """As GFS has them: temperature at pressure levels, 2 m, the tropopause, potential vorticity and model levels."""
    fields = [
        grib_like("t", "isobaricInhPa", [500.0, 850.0]),
        grib_like("t", "tropopause", 0.0),
        grib_like("t", "surface", 0.0),
        grib_like("t", "heightAboveGround", 80.0),
        grib_like("t", "hybrid", [1.0, 60.0, 137.0]),
        grib_like("u", "potentialVorticity", 2e-6, units="m s-1", value=3.0),
        grib_like("u10", "heightAboveGround", 10.0, short="10u", units="m s-1", value=5.0),
        grib_like("t2m", "heightAboveGround", 2.0, short="2t"),
        grib_like("prmsl", "meanSea", 0.0, units="Pa", value=1e5),
        grib_like("unknown", "surface", 0.0),
    ]
    (tmp_path / "gfs.grib").write_bytes(message(1, 100))
    monkeypatch.setattr("domains.climate.data.readers.files._open_grib", lambda file: fields)
    source = Source.open(str(tmp_path / "gfs.grib"))
    assert sorted(source.channel_names()) == ["msl", "t2m", "t500", "t850", "u10"]
    reasons = (
        "level type tropopause, says nothing of its pressure level, on heights above the ground, level type hybrid"
    )
    assert source.left_out == {"t": reasons, "u": "level type potentialVorticity", "unknown": "unknown here"}
    np.testing.assert_array_equal(source.to_dataset()["temperature"][:, 0, 0, 0], [280.0, 281.0, 282.0])


def test_only_what_is_wanted_is_checked(weather, tmp_path):
    cds = as_cds(weather)
    cds["sp"] = cds.t2m.assign_attrs(units="furlong")
    cds.to_netcdf(tmp_path / "bad.nc")
    with pytest.raises(DataError, match="surface_pressure is in 'furlong'"):
        Source.open(str(tmp_path / "bad.nc"))
    store = prepare(
        PrepareConfig(path=str(tmp_path / "bad.nc"), out=str(tmp_path / "s.zarr"), channels=["t2m", "z500"])
    )
    assert ClimateStore.open(store).schema.channels == ("t2m", "z500")


def test_real_grib_written_and_cut(tmp_path):
    eccodes = pytest.importorskip("eccodes")
    pytest.importorskip("cfgrib")
    file = tmp_path / "two.grib"
    with file.open("wb") as out:
        for level, kind in ((500, "isobaricInhPa"), (850, "isobaricInhPa"), (2, "tropopause")):
            handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
            eccodes.codes_set(handle, "shortName", "t")
            eccodes.codes_set(handle, "typeOfLevel", kind)
            if kind == "isobaricInhPa":
                eccodes.codes_set(handle, "level", level)
            eccodes.codes_set_values(handle, np.full(eccodes.codes_get(handle, "numberOfValues"), 270.0))
            eccodes.codes_write(handle, out)
    assert Source.open(str(file)).channel_names() == ["t500", "t850"]
    content = file.read_bytes()
    file.write_bytes(content[:-50])
    with pytest.raises(
        DataError, match=rf"two\.grib: is damaged, it was cut off at byte {len(content) - 50}: message 3"
    ):
        Source.open(str(file))


# -- levels -------------------------------------------------------------------------------------------------------


def on_levels(name, values, **attrs):
    coordinate = xr.Variable(name, np.asarray(values, dtype=float), attrs)
    return xr.DataArray(np.zeros((len(values), 2)), {name: coordinate}, (name, "latitude"))


@pytest.mark.parametrize(
    ("name", "values", "attrs", "expected"),
    [
        ("level", [500, 850], {}, [500, 850]),
        ("plev", [50000, 85000], {"units": "Pa"}, [500, 850]),
        ("plev", [50000, 85000], {}, [500, 850]),
        ("plev", [100000, 1000, 100], {"standard_name": "air_pressure"}, [1000, 10, 1]),
        ("lev", [1000, 500, 0.4], {"units": "hPa"}, [1000, 500, 0.4]),
        ("lev", [500, 850], {"units": "mbars"}, [500, 850]),
        ("lev", [500, 850], {"units": "Hectopascal"}, [500, 850]),
        ("isobaric3", [50000.0], {"units": "Pa"}, [500]),
        ("plev19", [50000.0, 100.0], {"units": "Pa"}, [500, 1]),
        ("level", [0.5, 0.85], {"units": "bar"}, [500, 850]),
        ("level", [1, 2, 3, 5], {}, [1, 2, 3, 5]),
        ("level", [50, 85], {"units": "kPa"}, [500, 850]),
        ("pressure_level", [60, 40], {"long_name": "pressure"}, [60, 40]),
    ],
)
def test_pressure_levels_are_known_by_what_is_said_of_them(name, values, attrs, expected):
    vertical = vertical_of(on_levels(name, values, **attrs))
    assert vertical.kind == "pressure"
    assert vertical.values == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "values", "attrs", "reason"),
    [
        ("level", [60, 100, 137], {"long_name": "model_level_number"}, "model levels"),
        ("level", [60, 100, 137], {}, "levels 60 to 137 without a unit"),
        ("hybrid", [60, 100, 137], {}, "model levels"),
        ("lev", [0.9, 0.5], {"standard_name": HYBRID}, "model levels"),
        (
            "lev",
            [992.5, 3.5],
            {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate", "units": "hPa"},
            "model",
        ),
        ("lev", list(range(1, 61)), {}, "levels 1 to 60 without a unit"),
        ("depth", [0.5, 10], {"units": "m", "positive": "down"}, "depth"),
        ("level", [300, 350], {"units": "K"}, "levels in 'K'"),
    ],
)
def test_other_levels_are_left_out_with_a_reason(name, values, attrs, reason):
    vertical = vertical_of(on_levels(name, values, **attrs))
    assert vertical.kind == "other"
    assert vertical.reason.startswith(reason)


def test_model_levels_are_no_channels_in_hpa(weather, tmp_path):
    cds = as_cds(weather).assign_coords(level=("level", [60, 137], {"long_name": "model_level_number", "units": "1"}))
    cds.to_netcdf(tmp_path / "ml.nc")
    source = Source.open(str(tmp_path / "ml.nc"))
    assert source.channel_names() == ["t2m", "u10"]
    assert source.left_out == {"z": "model levels", "t": "model levels", "v": "model levels"}
    with pytest.raises(DataError, match=r"ml\.nc: no variable temperature; t is there, but model levels"):
        source.field("t")


# -- names --------------------------------------------------------------------------------------------------------


def test_standard_names_of_the_cf_conventions_are_aliases(weather, tmp_path):
    odd = as_cds(weather).rename(z="Z_isobaric", t="field7", t2m="T_2M", u10="U_10M", v="wind")
    names = {"Z_isobaric": "geopotential", "field7": "air_temperature", "T_2M": "air_temperature",
             "U_10M": "eastward_wind", "wind": "northward_wind"}  # fmt: skip
    for name, standard_name in names.items():
        odd[name].attrs["standard_name"] = standard_name
    odd["T_2M"] = odd["T_2M"].assign_coords(height=xr.Variable((), 2.0, {"units": "m", "positive": "up"}))
    odd["U_10M"] = odd["U_10M"].assign_coords(height10=xr.Variable((), 10.0, {"units": "m"}))
    odd["T_2M"].attrs["standard_name"], odd["U_10M"].attrs["standard_name"] = "air_temperature", "eastward_wind"
    xr.merge([odd[["T_2M"]], odd[["Z_isobaric", "field7", "wind"]]]).to_netcdf(tmp_path / "a.nc")
    odd[["U_10M"]].drop_vars("height", errors="ignore").to_netcdf(tmp_path / "b.nc")
    read = open_source(str(tmp_path))
    for name in ("geopotential", "temperature", "v_component_of_wind", "2m_temperature", "10m_u_component_of_wind"):
        np.testing.assert_array_equal(read[name].values, canonical(weather)[name].values)


def test_a_standard_name_and_a_height_stand_for_one_variable():
    for variable in VARIABLES:
        if variable.standard_name:
            assert of_standard_name(variable.standard_name, variable.on_levels, variable.height) is variable
    assert of_standard_name("air_temperature", False, None) is None


def test_what_is_left_out_is_listed_once(weather, tmp_path, capsys):
    cds = as_cds(weather)
    cds["mystery"], cds["tp"] = cds.t2m, (0 * cds.t2m).assign_attrs(units="m")
    cds["bounds"] = ("latitude", np.zeros(8))
    cds.to_netcdf(tmp_path / "w.nc")
    prepare(PrepareConfig(path=str(tmp_path / "w.nc"), out=str(tmp_path / "s.zarr")))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert said == [f"left out of {tmp_path / 'w.nc'}: mystery (unknown here), tp (name it under channels)"]


def test_the_depth_of_a_surface_field_says_nothing(weather, tmp_path):
    sea = as_cds(weather)[["t2m"]].rename(t2m="tos").assign_coords(depth=xr.Variable((), 0.5, {"units": "m"}))
    sea.to_netcdf(tmp_path / "tos.nc")
    assert Source.open(str(tmp_path / "tos.nc")).channel_names() == ["sst"]


# -- deliveries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["era5.zip", "download.nc"])
def test_an_archive_of_several_files_as_cds_delivers_it(weather, tmp_path, name):
    surface = ["2m_temperature", "10m_u_component_of_wind"]
    write_cds_new(weather[surface], tmp_path / "data_stream-oper_stepType-instant.nc")
    write_cds_new(weather.drop_vars(surface), tmp_path / "data_stream-oper_levtype-pl.nc")
    folder = tmp_path / "delivered"
    folder.mkdir()
    with zipfile.ZipFile(folder / name, "w") as archive:
        for file in tmp_path.glob("*.nc"):
            archive.write(file, f"inside/{file.name}")
    read = open_source(str(folder / name))
    assert set(read.data_vars) == set(weather.data_vars)
    np.testing.assert_array_equal(read.geopotential.values, canonical(weather).geopotential.values)
    assert sorted(entry.name for entry in folder.iterdir()) == [name]


def test_an_archived_zarr(weather, tmp_path):
    store = write_wb2(weather, tmp_path / "w.zarr")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for file in store.rglob("*"):
            archive.write(file, file.relative_to(tmp_path))
    assert set(open_source(str(tmp_path / "w.zip")).data_vars) == set(weather.data_vars)


def test_a_damaged_or_empty_archive(tmp_path):
    file = tmp_path / "cut.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("notes.txt", "no data" * 100)
    with pytest.raises(DataError, match=r"cut\.zip: the archive has no NetCDF, GRIB or zarr data in it"):
        open_source(str(file))
    whole = tmp_path / "whole.zip"
    whole.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"whole\.zip: the archive is damaged"):
        open_source(str(whole))


def test_times_a_little_beside_the_minute(weather, tmp_path):
    late = weather.assign_coords(time=weather.time + np.timedelta64(900, "us") * np.array([1, -1] * 6))
    as_cds(late).to_netcdf(tmp_path / "late.nc", encoding={"time": {"units": "days since 1900-01-01", "dtype": "f8"}})
    np.testing.assert_array_equal(open_source(str(tmp_path / "late.nc")).time.values, weather.time.values)
    beside = weather.assign_coords(time=weather.time + np.timedelta64(20, "s"))
    write_cds_new(beside, tmp_path / "beside.nc")
    with pytest.raises(DataError, match=r"is not on a full minute; did you mean 2001-01-01T00:00"):
        open_source(str(tmp_path / "beside.nc"))


@pytest.mark.parametrize("with_coordinates", [False, True])
def test_a_projected_grid_is_not_taken_for_degrees(with_coordinates, tmp_path):
    """As HRRR and NAM have it: rows and columns in a plane, with two-dimensional latitudes beside them."""
    degrees = np.linspace(20, 50, 24).reshape(4, 6)
    coords = {"time": np.arange(5).astype("datetime64[D]").astype("datetime64[ns]"),
              "latitude": (("y", "x"), degrees), "longitude": (("y", "x"), degrees)}  # fmt: skip
    if with_coordinates:
        coords |= {"y": ("y", np.arange(4.0), {"units": "m"}), "x": ("x", np.arange(6.0), {"units": "m"})}
    xr.Dataset({"t2m": (("time", "y", "x"), np.full((5, 4, 6), 280.0))}, coords).to_netcdf(tmp_path / "hrrr.nc")
    with pytest.raises(DataError, match=r"hrrr\.nc: no latitude along a dimension; a regular latitude-longitude grid"):
        Source.open(str(tmp_path / "hrrr.nc"))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("longitude", np.nan, "longitudes must be finite numbers of degrees, found nan"),
        ("latitude", np.inf, "latitudes must be finite numbers of degrees, found inf"),
        ("latitude", 95.0, "latitudes must lie within -90 and 90 degrees, found .* to 95"),
    ],
)
def test_the_coordinate_that_is_wrong_is_the_one_that_is_named(name, value, says):
    grid = {"latitude": np.linspace(-60, 60, 4), "longitude": np.arange(0.0, 360, 45)}
    grid[name] = grid[name].copy()
    grid[name][-1] = value
    with pytest.raises(DataError, match=says):
        orient(grid["latitude"], grid["longitude"], "a.nc")


# -- grids as the conventions describe them -------------------------------------------------------------------------


def test_an_auxiliary_coordinate_gives_a_dimension_its_degrees(weather, tmp_path):
    field = as_cds(weather[["2m_temperature"]])
    bare = field.rename(latitude="lat", longitude="lon").rename_vars(lat="latitude", lon="longitude")
    assert set(bare.dims) == {"time", "lat", "lon"}
    bare.to_netcdf(tmp_path / "a.nc")
    read = open_source(str(tmp_path / "a.nc"))
    np.testing.assert_array_equal(read.latitude.values, np.sort(weather.latitude.values)[::-1])
    np.testing.assert_array_equal(read["2m_temperature"].values, canonical(weather)["2m_temperature"].values)


@pytest.mark.parametrize(
    ("names", "attrs"),
    [
        (("Latitude", "Longitude"), ({}, {})),
        (("nav_lat", "nav_lon"), ({"standard_name": "latitude"}, {"standard_name": "longitude"})),
        (("j", "i"), ({"standard_name": "latitude"}, {"standard_name": "longitude"})),
        (("j", "i"), ({"units": "degrees_north"}, {"units": "degrees_east"})),
        (("j", "i"), ({"units": "degree_N"}, {"units": "degreeE"})),
        (("j", "i"), ({"units": "degrees", "axis": "Y"}, {"units": "degrees", "axis": "X"})),
    ],
)
def test_attributes_of_the_conventions_name_the_grid(names, attrs, weather, tmp_path):
    field = as_cds(weather[["2m_temperature"]]).rename(latitude=names[0], longitude=names[1], time="t")
    for name, said in zip((*names, "t"), (*attrs, {"standard_name": "time"}), strict=True):
        field[name].attrs = said
    field.to_netcdf(tmp_path / "a.nc")
    read = open_source(str(tmp_path / "a.nc"))
    np.testing.assert_array_equal(read["2m_temperature"].values, canonical(weather)["2m_temperature"].values)


def test_radians_become_degrees_and_other_units_are_refused(weather, tmp_path):
    field = as_cds(weather[["2m_temperature"]])
    radians = field.assign_coords({name: np.deg2rad(field[name]) for name in ("latitude", "longitude")})
    for unit in ("radian", "m"):
        for name in ("latitude", "longitude"):
            radians[name].attrs["units"] = unit
        radians.to_netcdf(tmp_path / f"{unit}.nc")
    read = open_source(str(tmp_path / "radian.nc"))
    np.testing.assert_allclose(read.latitude.values, np.sort(weather.latitude.values)[::-1], atol=1e-9)
    with pytest.raises(DataError, match=r"m\.nc: the latitudes are in 'm'; give them in degrees"):
        open_source(str(tmp_path / "m.nc"))


def test_a_dimension_without_coordinate_is_refused(weather, tmp_path):
    as_cds(weather[["2m_temperature"]]).drop_vars("latitude").to_netcdf(tmp_path / "a.nc")
    with pytest.raises(DataError, match=r"a\.nc: the dimension latitude has no coordinate; add its latitudes"):
        open_source(str(tmp_path / "a.nc"))


def test_levels_that_are_no_whole_number_are_left_out(tmp_path, capsys):
    """As MERRA-2 and GFS have them near the top; two of them would be called 0 hPa."""
    field = as_cds(synthetic_source(num_times=40, channels=["t500", "t850"]))
    levels = [850.0, 500.0, 0.699999988079071, 0.4000000059604645, 0.30000001192092896]
    tall = xr.concat([field.t.sel(level=level if level > 1 else 500) for level in levels], "level")
    tall = tall.assign_coords(level=("level", levels, {"units": "hPa"})).transpose(*field.t.dims)
    tall.to_dataset(name="t").to_netcdf(tmp_path / "a.nc")
    out = prepare(PrepareConfig(path=str(tmp_path / "a.nc"), out=str(tmp_path / "s.zarr"), channels=["t500"]))
    np.testing.assert_array_equal(ClimateStore.open(out).read(np.arange(3))[:, 0], canonical(field).t.values[:3, 0])
    assert "t (not read at 0.7, 0.4, 0.3 hPa)" in capsys.readouterr().err
    assert Source.open(str(tmp_path / "a.nc")).levels == (500, 850)


@pytest.mark.parametrize("times", [12, 1])
def test_a_geopotential_without_a_level_is_no_ground_where_it_moves_or_is_high(times, weather, tmp_path):
    high = as_cds(weather[["2m_temperature", "geopotential"]]).sel(level=500, drop=True).isel(time=slice(times))
    high.to_netcdf(tmp_path / "a.nc")
    source = Source.open(str(tmp_path / "a.nc"))
    assert not source.statics
    assert source.left_out == {"z": "says nothing of its pressure level"}
