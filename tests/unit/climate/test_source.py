import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from weather_files import as_cds, write_cds_new, write_wb2

from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.samples import ClimateDataConfig, ForecastSource, ensure_store, open_or_prepare
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from sciml.core.config import build
from sciml.core.errors import ConfigError


def make_store(folder: Path, **options) -> ClimateStore:
    source = write_wb2(synthetic_source(num_times=120), folder / "w.zarr")
    return ClimateStore.open(prepare(PrepareConfig(path=str(source), out=str(folder / "store.zarr"), **options)))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ClimateStore:
    return make_store(tmp_path_factory.mktemp("store"))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_sample_is_a_state_and_what_came_after(store):
    source = ForecastSource(store, "train", [(12.0, 24.0)])
    train = store.indices("train")
    sample = source.sample(5, generator())
    everything = store.read(train)
    np.testing.assert_array_equal(sample.state, everything[5])
    np.testing.assert_array_equal(sample.targets, everything[[7, 11]])
    assert sample.intervals == (12.0, 24.0)
    assert sample.init_time == store.hours[train[5]]


def test_every_initial_time_is_used_and_the_last_target_is_the_last_time(store):
    train = store.indices("train")
    source = ForecastSource(store, "train", [(72.0,)])
    assert len(source) == len(train) - 12
    samples = [source.sample(i, generator()) for i in range(len(source))]
    assert [s.init_time for s in samples] == store.hours[train][:-12].tolist()
    np.testing.assert_array_equal(samples[-1].targets[0], store.read(train[-1:])[0])


def test_near_the_end_only_paths_that_stay_inside_are_drawn(store):
    train = store.indices("train")
    source = ForecastSource(store, "train", [(6.0,), (24.0,), (72.0,)])
    assert len(source) == len(train) - 1
    last = {source.sample(len(source) - 1, generator(seed)).intervals for seed in range(50)}
    assert last == {(6.0,)}
    drawn = [source.sample(0, generator(seed)).intervals[0] for seed in range(600)]
    counts = {hours: drawn.count(hours) for hours in set(drawn)}
    assert set(counts) == {6.0, 24.0, 72.0}  # the longest, too
    assert min(counts.values()) > 150


def test_the_generator_alone_decides(store):
    source = ForecastSource(store, "train", [(6.0,), (24.0,)], augment="roll_mirror")
    one, two = source.sample(3, generator(7)), source.sample(3, generator(7))
    assert one.intervals == two.intervals
    assert one.state.equal(two.state)


def test_evaluation_takes_each_initial_time_with_each_path(store):
    test = store.indices("test")
    source = ForecastSource(store, "test", [(6.0,), (24.0,)])
    assert len(source) == (len(test) - 1) + (len(test) - 4)
    met = [(s.init_time, s.intervals) for s in (source.sample(i, generator(i)) for i in range(len(source)))]
    assert len(set(met)) == len(met)
    assert met[:2] == [(store.hours[test[0]], (6.0,)), (store.hours[test[0]], (24.0,))]


def test_no_target_lies_outside_the_split(store):
    for split in ("train", "valid", "test"):
        inside = set(store.hours[store.indices(split)])
        source = ForecastSource(store, split, [(6.0, 6.0), (12.0, 6.0)])
        for index in range(len(source)):
            sample = source.sample(index, generator(index))
            assert {sample.init_time, *(sample.init_time + np.cumsum(sample.intervals))} <= inside


def test_batches(store):
    source = ForecastSource(store, "train", [(24.0, 24.0), (6.0, 6.0)])
    batch = source.collate([source.sample(i, generator(i)) for i in range(5)])
    assert batch.state.shape == (5, 8, 8, 16)
    assert batch.targets.shape == (5, 2, 8, 8, 16)
    assert batch.state.dtype == torch.float32
    assert batch.init_time.dtype == torch.float64


def test_from_memory_and_from_disk_are_the_same(store):
    memory = ForecastSource(store, "train", [(24.0, 12.0)])
    disk = ForecastSource(store, "train", [(24.0, 12.0)], preload_gb=0)
    for index in (0, 17, len(memory) - 1):
        one, two = memory.sample(index, generator()), disk.sample(index, generator())
        assert one.state.equal(two.state)
        assert one.targets.equal(two.targets)


class Numbered(Dataset):
    """Samples with a generator of their own, as the trainer's loader gives them."""

    def __init__(self, source: ForecastSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int):
        return self.source.sample(index, np.random.default_rng(index))


@pytest.mark.parametrize(("context", "preload_gb"), [("fork", 0.0), ("fork", 2.0), ("spawn", 2.0)])
def test_workers_give_what_one_process_gives(store, context, preload_gb):
    source = ForecastSource(store, "train", [(24.0,), (6.0,)], preload_gb=preload_gb)
    source.sample(0, generator())  # the parent has the store open already
    loader = DataLoader(
        Numbered(source),
        batch_size=8,
        num_workers=2 if context == "fork" else 1,
        collate_fn=source.collate,
        multiprocessing_context=context,
    )
    together = [batch for batch in loader]
    states = torch.cat([batch.state for batch in together])
    alone = [source.sample(i, generator(i)) for i in range(len(source))]
    assert states.equal(torch.stack([sample.state for sample in alone]))
    assert torch.cat([batch.targets for batch in together]).equal(torch.stack([sample.targets for sample in alone]))


def test_a_lead_time_must_be_a_multiple_of_the_step(store):
    with pytest.raises(ConfigError, match="lead time 20 h is not a multiple of the data's step of 6 h; nearest: 18h"):
        ForecastSource(store, "train", [(20.0,)])
    with pytest.raises(ConfigError, match="the same number of steps"):
        ForecastSource(store, "train", [(6.0,), (6.0, 6.0)])


def test_a_split_shorter_than_the_lead_time(store):
    with pytest.raises(
        ConfigError, match=r"no two times of the test split \(2001-.*\) are 240 h apart; make it longer, or"
    ):
        ForecastSource(store, "test", [(240.0,)])
    with pytest.raises(ConfigError, match="are 240 h apart"):
        ForecastSource(store, "test", [(6.0,), (240.0,)])


def test_rolling_turns_all_fields_of_a_sample_together(store):
    plain = ForecastSource(store, "train", [(24.0,)]).sample(0, generator())
    rolled = ForecastSource(store, "train", [(24.0,)], augment="roll").sample(0, generator(3))
    shifts = [k for k in range(16) if rolled.state.equal(plain.state.roll(k, -1))]
    assert len(shifts) == 1
    assert rolled.targets.equal(plain.targets.roll(shifts[0], -1))


def test_mirroring_swaps_hemispheres_and_turns_meridional_wind(store):
    plain = ForecastSource(store, "train", [(24.0,)]).sample(0, generator())
    source = ForecastSource(store, "train", [(24.0,)], augment="roll_mirror")
    sign = torch.tensor([-1.0 if name.startswith("v") else 1.0 for name in store.schema.channels])[:, None, None]
    mirrored = 0
    for seed in range(40):
        sample = source.sample(0, generator(seed))
        candidates = [(plain.state, plain.targets), (plain.state.flip(-2) * sign, plain.targets.flip(-2) * sign)]
        found = [
            kind
            for kind, (state, targets) in enumerate(candidates)
            if any(
                sample.state.equal(state.roll(k, -1)) and sample.targets.equal(targets.roll(k, -1)) for k in range(16)
            )
        ]
        assert len(found) == 1
        mirrored += found[0]
    assert 8 < mirrored < 32


def test_a_planet_with_geography_is_not_turned(tmp_path):
    store = make_store(tmp_path, statics=["latitude"])
    with pytest.raises(
        ConfigError, match=r"data\.augment: this planet is not the same everywhere: it has latitude; use none"
    ):
        ForecastSource(store, "train", [(6.0,)], augment="roll")
    with pytest.raises(ConfigError, match=r"data\.augment must be .*'rol'; did you mean 'roll'"):
        ForecastSource(store, "train", [(6.0,)], augment="rol")


def test_unevenly_spaced_times_pair_where_they_truly_are_so_far_apart(tmp_path):
    """The real ERA5 week at hand has analyses 7 and 8 h apart."""
    hours = np.cumsum([0, *[7, 7, 7, 8] * 20])[:60]
    weather = synthetic_source(num_times=60)
    weather["time"] = np.datetime64("2026-03-25", "ns") + hours.astype("timedelta64[h]")
    store = open_or_prepare(
        ClimateDataConfig(path=str(write_cds_new(weather, tmp_path / "week.nc")), cache=str(tmp_path), allow_gaps=True)
    )
    assert store.schema.step_hours == 1
    train = hours[: len(store.indices("train"))]
    source = ForecastSource(store, "train", [(72.0,), (7.0,), (9.0,)])
    expected = [h for h in train if h + 72 in train or h + 7 in train]
    assert [source.sample(i, generator()).init_time - store.hours[0] for i in range(len(source))] == expected
    sample = next(s for s in (source.sample(i, generator(i)) for i in range(len(source))) if s.intervals == (72.0,))
    at = int(np.flatnonzero(store.hours == sample.init_time + 72)[0])
    np.testing.assert_array_equal(sample.targets[0], store.read([at])[0])
    with pytest.raises(ConfigError, match=r"no two times of the train split .* are 9 h apart; .*the lead time 8h"):
        ForecastSource(store, "train", [(9.0,)])


# -- from a source straight to samples --------------------------------------------------------------------------


def test_a_source_is_prepared_once(tmp_path, monkeypatch):
    path = write_cds_new(synthetic_source(num_times=60), tmp_path / "era5.nc")
    config = ClimateDataConfig(path=str(path), cache=str(tmp_path / "cache"), channels=["t2m", "z500"])
    first = open_or_prepare(config)
    assert first.schema.channels == ("t2m", "z500")
    assert first.path.name.startswith("era5-")
    monkeypatch.setattr("domains.climate.data.samples.prepare", lambda *_, **__: pytest.fail("prepared again"))
    assert open_or_prepare(config).path == first.path
    assert ensure_store(str(first.path), tmp_path / "cache") == first.path


def test_changed_files_or_choices_make_another_store(tmp_path):
    weather = synthetic_source(num_times=60)
    path = write_cds_new(weather, tmp_path / "era5.nc")
    one = ensure_store(str(path), tmp_path / "cache")
    as_cds(weather.isel(time=slice(0, 40))).to_netcdf(path)
    assert (
        len(
            {
                one,
                ensure_store(str(path), tmp_path / "cache"),
                ensure_store(str(path), tmp_path / "cache", ClimateDataConfig(grid="8x4")),
            }
        )
        == 3
    )


def _ensure(path: str, cache: str) -> None:
    ensure_store(path, cache)


def test_several_ranks_ask_at_once(tmp_path):
    path = write_cds_new(synthetic_source(num_times=60), tmp_path / "era5.nc")
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_ensure, args=(str(path), str(tmp_path / "cache"))) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_finished_store_keeps_its_choices(store):
    with pytest.raises(ConfigError, match=r"data\.grid: .* is a finished store and keeps its own grid"):
        open_or_prepare(ClimateDataConfig(path=str(store.path), grid="8x4"))
    assert open_or_prepare(ClimateDataConfig(path=str(store.path))).path == store.path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, r"data\.path: no data are named"),
        ({"preload_gb": -1.0}, r"data\.preload_gb must be at least 0, got -1\.0"),
        ({"augment": "spin"}, r"data\.augment must be one of auto, none, roll, roll_mirror, got 'spin'"),
        ({"channels": ["tt2"]}, r"data\.channels: unknown channel 'tt2'"),
        ({"splits": {"train": 1.0}}, r"data\.splits: the split 'valid' is missing"),
    ],
)
def test_a_wrong_configuration_names_its_key(options, message):
    with pytest.raises(ConfigError, match=message):
        build(ClimateDataConfig, options, prefix="data")
