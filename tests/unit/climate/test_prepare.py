import errno
import json
import shutil

import numpy as np
import pytest
import xarray as xr
from weather_files import as_cds, canonical, write_cds_new, write_wb2

from domains.climate.data import prepare as module
from domains.climate.data import store_layout as plan
from domains.climate.data import zarr_layout as layout
from domains.climate.data.calendar import WORLD
from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.regrid import LatLonGrid, Regridder
from domains.climate.data.selection import Selection
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from sciml.core.errors import ConfigError, DataError, RunError


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return synthetic_source(num_times=200)


@pytest.fixture
def source(weather, tmp_path):
    return str(write_wb2(weather, tmp_path / "w.zarr"))


def store_of(source: str, tmp_path, **options) -> ClimateStore:
    return ClimateStore.open(prepare(PrepareConfig(path=source, out=str(tmp_path / "store.zarr"), **options)))


def stacked(weather: xr.Dataset, channels: tuple[str, ...]) -> np.ndarray:
    """Channels by hand: (time, channel, latitude, longitude)."""
    names = {"z": "geopotential", "t": "temperature", "v": "v_component_of_wind", "t2m": "2m_temperature",
             "u10": "10m_u_component_of_wind"}  # fmt: skip
    ordered = canonical(weather)
    fields = [
        ordered[names[c]].values if c in names else ordered[names[c[0]]].sel(level=int(c[1:])).values for c in channels
    ]
    return np.stack(fields, axis=1)


def test_everything_there_is_in_the_order_of_this_project(source, weather, tmp_path):
    store = store_of(source, tmp_path)
    assert store.schema.channels == ("z500", "z850", "t500", "t850", "v500", "v850", "t2m", "u10")
    assert store.schema.step_hours == 6
    assert store.schema.title == "Synthetic waves, not weather"
    assert store.schema.latitude[0] > store.schema.latitude[-1]
    np.testing.assert_array_equal(store.times, weather.time.values.astype("datetime64[m]"))
    np.testing.assert_array_equal(store.read(slice(None)), stacked(weather, store.schema.channels))


def test_chosen_channels_dates_step_and_grid(source, weather, tmp_path):
    store = store_of(
        source, tmp_path, channels=["t2m", "v850", "z500"], start="2001-01-03", end="2001-01-31", step="12h", grid="8x4"
    )
    assert store.schema.channels == ("t2m", "v850", "z500")
    assert store.schema.grid_shape == (4, 8)
    assert store.schema.step_hours == 12
    part = weather.sel(time=slice("2001-01-03", "2001-01-31")).isel(time=slice(None, None, 2))
    regridder = Regridder(LatLonGrid.parse("16x8"), LatLonGrid.parse("8x4"))
    expected = regridder(stacked(part, store.schema.channels).astype(np.float64))
    np.testing.assert_allclose(store.read(slice(None)), expected, rtol=1e-6, atol=1e-5)


def test_fields_without_compression_are_the_same(source, weather, tmp_path):
    store = store_of(source, tmp_path, compress=False)
    assert layout.open_group(store.path, "r")["fields"].metadata.compressor is None
    np.testing.assert_array_equal(store.read(slice(None)), stacked(weather, store.schema.channels))


def test_levels_restrict_what_is_taken(source, tmp_path):
    assert store_of(source, tmp_path, levels=[850]).schema.channels == ("z850", "t850", "v850", "t2m", "u10")
    with pytest.raises(ConfigError, match=r"levels: .*has no level 700 hPa"):
        prepare(PrepareConfig(path=source, out=str(tmp_path / "other.zarr"), levels=[700]))


def test_xarray_opens_it(source, tmp_path):
    store = store_of(source, tmp_path)
    with xr.open_zarr(store.path, chunks=None) as opened:
        assert opened.fields.dims == ("time", "channel", "latitude", "longitude")
        sizes = {"channel": 8, "latitude": 8, "longitude": 16}
        assert opened.daily_means.sizes == {"hour": 4, "day_with_data": 39, **sizes}  # not 366: days that occur
        assert opened.weekly_climatology.sizes == {"week": 6, **sizes}
        np.testing.assert_array_equal(
            opened.fields.sel(channel="t2m", time="2001-01-02T06").values, store.read([5])[0, 6]
        )
        assert set(opened.attrs["splits"]) == {"train", "valid", "test"}


def test_statistics_are_of_the_whole_training_period_and_of_nothing_else(weather, tmp_path):
    """Other systems' error: statistics of the last year only, because a list was reset in a loop."""
    splits = {
        "train": ["2001-01-01", "2001-01-31"],
        "valid": ["2001-02-02", "2001-02-08"],
        "test": ["2001-02-10", "2001-03-01"],
    }
    one = store_of(str(write_wb2(weather, tmp_path / "a.zarr")), tmp_path, splits=splits)
    train = one.indices("train")
    assert (str(one.times[train[0]]), str(one.times[train[-1]])) == ("2001-01-01T00:00", "2001-01-31T18:00")
    fields = one.read(train).astype(np.float64)
    weights = np.cos(np.deg2rad(one.schema.latitude)) * 0 + _area(one.schema.latitude)
    mean = (fields.mean((0, 3)) * weights).mean(-1)
    std = np.sqrt((((fields - mean[:, None, None]) ** 2).mean((0, 3)) * weights).mean(-1))
    np.testing.assert_allclose(one.statistics.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(one.statistics.std, std, rtol=1e-6)
    changed = weather.copy(deep=True)
    late = changed.time >= np.datetime64("2001-02-01")
    for name in changed.data_vars:
        changed[name] = changed[name].where(~late, changed[name] * 1.02).assign_attrs(weather[name].attrs)
    other = ClimateStore.open(
        prepare(
            PrepareConfig(
                path=str(write_wb2(changed, tmp_path / "b.zarr")), out=str(tmp_path / "b-store.zarr"), splits=splits
            )
        )
    )
    assert not np.array_equal(other.read(other.indices("test")), one.read(one.indices("test")))
    for name, value in one.statistics.to_tensors().items():
        assert value.equal(other.statistics.to_tensors()[name]), name
    hours = one.hours
    np.testing.assert_array_equal(one.climatology(hours), other.climatology(hours))
    np.testing.assert_array_equal(one.weekly_climatology(hours), other.weekly_climatology(hours))


def _area(latitude: tuple[float, ...]) -> np.ndarray:
    edges = np.sin(np.deg2rad(np.linspace(90, -90, len(latitude) + 1)))
    return -np.diff(edges) / -np.diff(edges).mean()


def test_statics_are_standardized_and_latitude_is_computed(weather, tmp_path):
    cds = as_cds(weather[["2m_temperature"]])
    land = xr.zeros_like(cds.t2m) + np.random.default_rng(0).uniform(size=(8, 16)).astype(np.float32)
    cds["lsm"] = land.assign_attrs(units="1")
    cds.to_netcdf(tmp_path / "w.nc")
    store = store_of(str(tmp_path / "w.nc"), tmp_path, statics=["lsm", "latitude"])
    assert store.schema.statics == ("lsm", "latitude")
    statics = store.statistics.statics.double().numpy()
    area = _area(store.schema.latitude)[:, None]
    np.testing.assert_allclose((statics * area).mean((1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose((statics**2 * area).mean((1, 2)), 1, rtol=1e-5)
    assert np.corrcoef(statics[0].ravel(), land[0].values.ravel())[0, 1] > 0.999999
    with pytest.raises(DataError, match="no constant field geopotential_at_surface"):
        prepare(PrepareConfig(path=str(tmp_path / "w.nc"), out=str(tmp_path / "x.zarr"), statics=["orography"]))


def test_little_memory_gives_the_same_store(source, tmp_path):
    much = store_of(source, tmp_path)
    little = ClimateStore.open(
        prepare(PrepareConfig(path=source, out=str(tmp_path / "little.zarr"), max_memory_gb=1e-4))
    )
    np.testing.assert_array_equal(much.read(slice(None)), little.read(slice(None)))
    for name, value in much.statistics.to_tensors().items():
        np.testing.assert_allclose(value, little.statistics.to_tensors()[name], rtol=1e-6)
    np.testing.assert_allclose(much.climatology(much.hours), little.climatology(little.hours), rtol=1e-6)


def test_an_interrupted_run_goes_on_where_it_was(source, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "CHUNK_BYTES", 8 * 4 * 8 * 8 * 16)
    whole = store_of(source, tmp_path)
    reads: list[int] = []
    original = plan.PreparePlan.read

    def interrupted(self, part):
        reads.append(part.start)
        if len(reads) == 3:
            raise KeyboardInterrupt
        return original(self, part)

    config = PrepareConfig(path=source, out=str(tmp_path / "again.zarr"), max_memory_gb=1e-4)
    with monkeypatch.context() as patch:
        patch.setattr(plan.PreparePlan, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    assert not (tmp_path / "again.zarr").exists()
    before = list(reads)
    reads.clear()
    reads += [-1] * 3  # so that it is not interrupted again
    monkeypatch.setattr(plan.PreparePlan, "read", interrupted)
    again = ClimateStore.open(prepare(config))
    assert reads[3] == before[2] > 0  # the block it was in, not the first
    np.testing.assert_array_equal(again.read(slice(None)), whole.read(slice(None)))
    assert again.statistics.mean.equal(whole.statistics.mean)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_other_choices_do_not_go_on_with_an_interrupted_store(source, tmp_path, monkeypatch):
    partial = tmp_path / ".store.zarr.partial"
    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_climatology", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store_of(source, tmp_path)
    assert json.loads((partial / "journal.json").read_text())["blocks"] > 0
    assert store_of(source, tmp_path, channels=["t2m"]).schema.channels == ("t2m",)


def test_a_full_disk_says_so_and_nothing_is_lost(source, tmp_path, monkeypatch):
    import zarr

    original = zarr.Array.__setitem__
    full = [True]

    def setitem(self, key, value):
        if full[0] and self.basename == "daily_means":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, key, value)

    monkeypatch.setattr(zarr.Array, "__setitem__", setitem)
    with pytest.raises(RunError, match="the disk is full"):
        store_of(source, tmp_path)
    assert not (tmp_path / "store.zarr").exists()
    full[0] = False
    assert len(store_of(source, tmp_path).times) == 200


def test_a_store_is_not_overwritten_unasked(source, tmp_path):
    store_of(source, tmp_path)
    with pytest.raises(ConfigError, match=r"out: .*store\.zarr is there already.*overwrite=true"):
        store_of(source, tmp_path)
    assert store_of(source, tmp_path, channels=["t2m"], overwrite=True).schema.channels == ("t2m",)
    (tmp_path / "precious").mkdir()
    with pytest.raises(ConfigError, match="is no store of ours and is not overwritten"):
        prepare(PrepareConfig(path=source, out=str(tmp_path / "precious"), overwrite=True))


# -- bad data: one sentence that names file, variable and time --------------------------------------------------


def prepared_from(weather: xr.Dataset, tmp_path, **options) -> ClimateStore:
    return store_of(str(write_cds_new(weather, tmp_path / "w.nc")), tmp_path, **options)


def test_a_gap_in_time(weather, tmp_path):
    holey = weather.isel(time=[*range(20), *range(22, 200)])
    with pytest.raises(
        DataError, match=r"w\.nc: .* is missing at 2001-01-06T00:00; after 2001-01-05T18:00 comes 2001-01-06T12:00"
    ):
        prepared_from(holey, tmp_path)
    assert len(prepared_from(holey, tmp_path, start="2001-01-07").times) == 176
    gappy = ClimateStore.open(
        prepare(PrepareConfig(path=str(tmp_path / "w.nc"), out=str(tmp_path / "gappy.zarr"), allow_gaps=True))
    )
    assert gappy.schema.step_hours == 6
    assert not gappy.is_even


def test_a_variable_that_lacks_times_others_have(weather, tmp_path):
    write_cds_new(weather[["2m_temperature"]], tmp_path / "a.nc")
    write_cds_new(weather[["10m_u_component_of_wind"]].isel(time=slice(0, 150)), tmp_path / "b.nc")
    with pytest.raises(DataError, match=r"b\.nc: 10m_u_component_of_wind \(u10\) is missing at 2001-02-07T12:00"):
        store_of(str(tmp_path / "*.nc"), tmp_path)
    assert len(store_of(str(tmp_path / "*.nc"), tmp_path, end="2001-02-06").times) == 148


def test_not_a_number(weather, tmp_path):
    broken = weather.copy(deep=True)
    broken["temperature"][37, 1, 2, 3] = np.nan
    with pytest.raises(DataError, match=r"w\.nc: temperature \(t850\) at 2001-01-10T06:00 is not a number in 0\.8% of"):
        prepared_from(broken, tmp_path)
    assert not (tmp_path / "store.zarr").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["w.nc"]


def test_values_that_cannot_be(weather, tmp_path):
    celsius = weather.copy(deep=True)
    celsius["2m_temperature"] = (celsius["2m_temperature"] - 273.15).assign_attrs(units="K")
    with pytest.raises(
        DataError, match=r"w\.nc: 2m_temperature \(t2m\) at 2001-01-01T00:00 lies between .* K, outside the possible"
    ):
        prepared_from(celsius, tmp_path)


def test_a_missing_variable_or_level(weather, tmp_path):
    with pytest.raises(DataError, match=r"w\.nc: no variable mean_sea_level_pressure"):
        prepared_from(weather, tmp_path, channels=["t2m", "msl"])
    with pytest.raises(DataError, match=r"w\.nc: geopotential has no level 300 hPa; it has 500, 850"):
        prepared_from(weather, tmp_path, channels=["z300"])


def test_a_constant_channel(weather, tmp_path):
    constant = weather.copy(deep=True)
    constant["2m_temperature"][:] = 280.0
    with pytest.raises(DataError, match=r"2m_temperature \(t2m\) is the same at all times"):
        prepared_from(constant, tmp_path)


def test_a_damaged_piece_met_on_the_way_leaves_nothing_behind(weather, tmp_path):
    source = write_wb2(weather, tmp_path / "w.zarr")
    for chunk in (source / "geopotential").glob("[0-9]*"):
        chunk.write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"w\.zarr: geopotential at 2001-01-01T00:00 cannot be read"):
        store_of(str(source), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["w.zarr"]
    shutil.rmtree(source)


# -- choices ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ["z5000x"]}, "channels: unknown channel 'z5000x'"),
        ({"channels": []}, "channels: no channel is chosen"),
        ({"statics": ["t2m"]}, "statics: t2m changes in time"),
        ({"grid": "32x64"}, "grid: .*longitudes come first"),
        ({"start": "yesterday"}, "start: 'yesterday' is no date"),
        ({"step": "six"}, "step: 'six' is no duration"),
        ({"splits": {"train": 0.8, "valid": 0.1, "tset": 0.1}}, "splits: unknown split 'tset'; did you mean 'test'"),
        ({"splits": {"train": 0.8, "valid": 0.1}}, "splits: the split 'test' is missing"),
        ({"splits": {"train": 0.8, "valid": 0.2, "test": 0.2}}, "sum to at most 1"),
        (
            {"splits": {"train": 0.8, "valid": 0.1, "test": ["2001", "2002"]}},
            "splits.train: .*neither a share nor two dates",
        ),
        (
            {"splits": {"train": ["2001", "2003"], "valid": ["2003", "2004"], "test": ["2005", "2006"]}},
            "train and valid overlap",
        ),
        (
            {"splits": {"train": ["2003", "2001"], "valid": ["2004", "2004"], "test": ["2005", "2006"]}},
            "ends .* before it starts",
        ),
    ],
)
def test_a_wrong_choice_is_refused_at_once(options, message):
    with pytest.raises(ConfigError, match=message):
        Selection(**options)


def test_choices_that_do_not_fit_the_data(weather, tmp_path):
    with pytest.raises(ConfigError, match=r"step: 9 h is no multiple of the data's step of 6 h; e.g. step=6h"):
        prepared_from(weather, tmp_path, step="9h")
    with pytest.raises(ConfigError, match=r"splits\.test: no data lie between"):
        prepared_from(
            weather,
            tmp_path,
            splits={"train": ["2001-01", "2001-01"], "valid": ["2001-02", "2001-02"], "test": ["2005", "2006"]},
        )
    with pytest.raises(ConfigError, match="start: 0 of the times"):
        prepared_from(weather, tmp_path, start=2030)
    with pytest.raises(ConfigError, match=r"splits\.(valid|test): 10 times are too few"):
        prepared_from(weather, tmp_path, end="2001-01-03T06", splits={"train": 0.9, "valid": 0.02, "test": 0.08})


def test_splits_by_share_are_in_order_with_a_gap(source, tmp_path):
    store = store_of(source, tmp_path, gap="48h")
    train, valid, test = (store.indices(name) for name in ("train", "valid", "test"))
    assert train[0] == 0
    assert test[-1] == 199
    assert valid[0] - train[-1] == test[0] - valid[-1] == 9  # eight times of six hours between them
    assert len(train) == pytest.approx(0.8 * 184, abs=1)


def test_dates_include_their_last_day():
    assert str(WORLD.moment("2016", last=True)) == "2016-12-31T23:59"
    assert str(WORLD.moment(2016)) == "2016-01-01T00:00"
    assert str(WORLD.moment("2016-02", last=True)) == "2016-02-29T23:59"
    assert str(WORLD.moment("2016-02-03T06:00", last=True)) == "2016-02-03T06:00"
