import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from weather_files import write_wb2

from domains.climate.data import zarr_layout as layout
from domains.climate.data.calendar import WORLD
from domains.climate.data.climatology import DayTimes
from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from sciml.core.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    source = write_wb2(synthetic_source(num_times=4 * 460, channels=("t2m", "msl")), folder / "w.zarr")
    return prepare(PrepareConfig(path=str(source), out=str(folder / "store.zarr")))


@pytest.fixture
def store(prepared, tmp_path) -> ClimateStore:
    """A copy, which a test may spoil."""
    return ClimateStore.open(shutil.copytree(prepared, tmp_path / "store.zarr"))


def test_reading_in_any_order(store):
    everything = store.read(slice(None))
    assert everything.shape == (1840, 2, 8, 16)
    assert everything.dtype == np.float32
    for indices in ([5], [7, 3, 1200], np.arange(10, 20), [4, 4]):
        np.testing.assert_array_equal(store.read(indices), everything[np.asarray(indices)])


def test_times_and_splits(store):
    assert str(store.times[1]) == "2001-01-01T06:00"
    assert store.hours[1] - store.hours[0] == 6
    assert store.hours[0] == (np.datetime64("2001-01-01") - np.datetime64("1970-01-01")) / np.timedelta64(1, "h")
    assert store.is_even
    assert store.period("train")[0] == "2001-01-01T00:00"
    assert store.indices("train")[-1] < store.indices("valid")[0] < store.indices("test")[0]
    with pytest.raises(ConfigError, match="did you mean 'valid'"):
        store.indices("valdi")


def test_climatology_at_valid_times(store):
    import zarr

    table = zarr.open_group(str(store.path), mode="r")
    times = np.array(["2030-03-01T18:00", "2000-02-29T00:00", "1999-12-31T12:00"], "datetime64[m]")
    hours = times.astype(np.int64) / 60
    found = store.climatology(hours)
    for number, (time, hour) in enumerate(zip(times, (3, 0, 2), strict=True)):
        expected = table["climatology"][hour, int(WORLD.day_of_year(np.array([time]))[0])]
        np.testing.assert_array_equal(found[number], expected)
    np.testing.assert_array_equal(store.climatology(torch.tensor(hours)), found)
    weekly = store.weekly_climatology(hours)
    for number, week in enumerate(DayTimes((0.0,)).week(times)):
        row = np.flatnonzero(table["week"][:] == week)
        expected = table["weekly_climatology"][int(row[0])] if len(row) else table["mean_climatology"][:]
        np.testing.assert_array_equal(weekly[number], expected)
    assert store.climatology(np.empty(0)).shape == (0, 2, 8, 16)
    everything = store.read(store.indices("train")).astype(np.float64).mean(0)
    np.testing.assert_allclose(store.mean_climatology(hours), np.stack([everything] * 3), rtol=1e-6)


def test_a_climatology_beats_the_mean_where_there_is_a_season(store):
    """The synthetic weather has a yearly cycle, so the test period's climatology error must be below the mean's."""
    test = store.indices("test")
    truth = store.read(test)[:, 0]
    error = np.mean((store.climatology(store.hours[test])[:, 0] - truth) ** 2)
    mean = store.read(store.indices("train"))[:, 0].mean(0)
    assert error < 0.95 * np.mean((mean - truth) ** 2)


def test_it_travels_to_other_processes(store):
    store.read([0])
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read([3, 9]), store.read([3, 9]))
    assert again.statistics.mean.equal(store.statistics.mean)


def test_statistics_as_tensors(store):
    statistics = store.statistics
    assert statistics.mean.dtype == torch.float32
    assert statistics.increment_std.shape == (40, 2)
    assert statistics.statics.shape == (0, 8, 16)
    assert statistics.lead_hours[0] == 6
    assert statistics.increment_std_at(torch.tensor([9.0])).shape == (1, 2)


def test_no_store(tmp_path):
    with pytest.raises(DataError, match=r"nothing: no such store; make one with: python scripts/prepare\.py"):
        ClimateStore.open(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no climate store; make one with: python scripts/prepare\.py path="):
        ClimateStore.open(tmp_path)


def test_another_version(store):
    attrs = json.loads((store.path / ".zattrs").read_text())
    (store.path / ".zattrs").write_text(json.dumps({**attrs, "version": 99}))
    with pytest.raises(DataError, match=f"a store of version 99, this program reads {layout.VERSION}"):
        ClimateStore.open(store.path)


def test_a_chunk_that_is_gone_is_noticed_when_the_store_is_opened(store):
    sorted((store.path / "fields").glob("[0-9]*"))[0].unlink()
    with pytest.raises(DataError, match=r"1 of \d+ pieces of the store's fields are gone"):
        ClimateStore.open(store.path)


def test_a_chunk_that_goes_while_it_is_open(store):
    (store.path / "fields" / "0.0.0.0").unlink()
    with pytest.raises(DataError, match="t2m at 2001-01-01T00:00 is gone from the store"):
        store.read([0])


def test_a_corrupted_chunk(store):
    (store.path / "fields" / "0.0.0.0").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="the store's fields cannot be read, it is damaged"):
        store.read([0])
    (store.path / "mean" / "0").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="the store's statistics cannot be read"):
        ClimateStore.open(store.path).statistics  # noqa: B018
