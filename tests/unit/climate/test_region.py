"""Regions: boxes across any meridian, with the weather at their edges given and scores inside."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.numpy import load_file

from domains.climate.data.batch import FieldBatch
from domains.climate.data.boundary import Surroundings, boundary_frame, score_weights
from domains.climate.data.prepare import PrepareConfig, prepare
from domains.climate.data.readers import Source
from domains.climate.data.schema import cell_area_weights
from domains.climate.data.selection import Selection
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from domains.climate.forecast.example import WeatherExample
from domains.climate.model.topology import topology_of
from sciml.app.cli import main
from sciml.core.errors import ConfigError, DataError
from sciml.nn.topology import Cap, Plane, Side
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run
from sciml.run.scoring import EXAMPLE
from tests.unit.climate.weather_files import as_cds, canonical

CHANNELS = ["t2m", "u10", "z500"]


@pytest.fixture(scope="module")
def globe():
    return synthetic_source(num_times=100, step_hours=12, grid="36x18", channels=CHANNELS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, globe):
    folder = tmp_path_factory.mktemp("regions")
    as_cds(globe).to_netcdf(folder / "globe.nc")
    return folder


def box_of(folder, region, name="box.zarr"):
    config = PrepareConfig(path=str(folder / "globe.nc"), out=str(folder / name), region=region, overwrite=True)
    return ClimateStore.open(prepare(config))


@pytest.mark.parametrize(
    ("region", "longitude"),
    [
        ([70, 20, 20, 110], np.arange(20.0, 111, 10)),
        ([70, 150, -30, -150], np.arange(150.0, 211, 10)),  # across the date line
        ([70, -40, 20, 40], np.arange(-40.0, 41, 10)),  # across Greenwich
        ([70, 330, 20, 390], np.arange(-30.0, 31, 10)),
    ],
)
def test_a_region_lies_across_any_meridian(folder, globe, region, longitude):
    store = box_of(folder, region)
    np.testing.assert_allclose(store.schema.longitude, longitude)
    assert store.schema.is_region
    assert store.augmentation == "none"
    raw = canonical(globe)["2m_temperature"]
    rows = [lat for lat in raw.latitude.values if region[2] <= lat <= region[0]]
    expected = raw.sel(latitude=rows).sel(longitude=np.mod(longitude, 360), method="nearest")
    np.testing.assert_array_equal(store.read(np.arange(3))[:, store.schema.channels.index("t2m")], expected[:3])


@pytest.mark.parametrize("west", [150, -40])
def test_a_file_of_a_region_keeps_its_columns_together(folder, globe, tmp_path, west):
    columns = np.mod(west + np.arange(0, 80, 10), 360)
    cds = as_cds(globe).sel(latitude=slice(70, 10)).sel(longitude=columns, method="nearest")
    cds = cds.assign_coords(longitude=(cds.longitude + 180) % 360 - 180).sortby("longitude")  # torn at 180 or not
    cds.to_netcdf(tmp_path / "box.nc")
    read = Source.open(str(tmp_path / "box.nc")).to_dataset()
    np.testing.assert_allclose(np.diff(read.longitude.values), 10)
    assert read.longitude.values[0] == pytest.approx(west)
    expected = canonical(globe)["2m_temperature"].sel(latitude=slice(70, 10)).sel(longitude=columns, method="nearest")
    np.testing.assert_array_equal(read["2m_temperature"].values, expected.values)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"region": [20, -10, 35, 30]}, r"region must be \[north, west, south, east\] in degrees, got \[20"),
        ({"region": [20, -10, 35]}, r"region must be \[north, west, south, east\]"),
        ({"region": [60, 0, 30, 40], "grid": "64x32"}, "region: cannot be given together with grid"),
    ],
)
def test_a_wrong_region(keys, message):
    with pytest.raises(ConfigError, match=message):
        Selection(**keys)


def test_a_region_without_points_and_a_grid_for_a_region(folder, globe, tmp_path):
    with pytest.raises(ConfigError, match=r"region: .*globe\.nc has 1x1 points in it; it covers latitudes -85 to 85"):
        box_of(folder, [26, 19, 24, 22])
    as_cds(globe).isel(longitude=slice(0, 12)).to_netcdf(tmp_path / "box.nc")
    with pytest.raises(ConfigError, match=r"grid: .*box\.nc covers latitudes .* longitudes 0 to 110 alone"):
        prepare(PrepareConfig(path=str(tmp_path / "box.nc"), out=str(tmp_path / "s.zarr"), grid="8x4"))


def test_the_south_pole_is_left_out_where_asked(tmp_path):
    synthetic_source(num_times=40, grid="16x9").to_netcdf(tmp_path / "odd.nc")
    whole = ClimateStore.open(prepare(PrepareConfig(path=str(tmp_path / "odd.nc"), out=str(tmp_path / "a.zarr"))))
    cut = ClimateStore.open(
        prepare(PrepareConfig(path=str(tmp_path / "odd.nc"), out=str(tmp_path / "b.zarr"), drop_pole=True))
    )
    assert whole.schema.grid_shape == (9, 16)
    assert cut.schema.grid_shape == (8, 16)
    np.testing.assert_array_equal(cut.read(slice(0, 3)), whole.read(slice(0, 3))[:, :, :8])
    assert not cut.schema.is_region


def test_areas_and_edges_of_a_region(folder):
    store = box_of(folder, [70, 20, 20, 110])
    schema = store.schema
    edges = np.deg2rad(np.append(np.asarray(schema.latitude) + 5, schema.latitude[-1] - 5))
    area = -np.diff(np.sin(edges))
    np.testing.assert_allclose(cell_area_weights(schema.latitude), area / area.mean())
    frame = boundary_frame(schema, 1)
    assert frame.sum() == 2 * 10 + 2 * 3
    weights = score_weights(schema, frame)
    assert weights.mean() == pytest.approx(1)
    assert (weights[frame] == 0).all()
    side = (Side.OPEN, Side.OPEN)
    assert topology_of(schema.latitude, schema.longitude) == Plane(side, side)
    band = box_of(folder, [70, 0, 20, 360], "band.zarr").schema
    assert topology_of(band.latitude, band.longitude) == Plane((Side.PERIODIC,) * 2, side)
    assert boundary_frame(band, 1).sum() == 2 * 36


@pytest.mark.parametrize(("north", "south", "is_first"), [(90, 20, True), (-20, -90, False)])
def test_a_pole_is_no_edge_of_a_region(north, south, is_first, folder):
    schema = box_of(folder, [north, 0, south, 360], f"cap{north}.zarr").schema
    on_pole = abs(schema.latitude[0 if is_first else -1]) == 90
    assert topology_of(schema.latitude, schema.longitude) == Cap(is_first, on_pole)
    frame = boundary_frame(schema, 1)
    assert np.flatnonzero(frame.all(1)).tolist() == [len(schema.latitude) - 1 if is_first else 0]
    assert frame.sum() == 36
    part = box_of(folder, [north, 0, south, 90], f"part{north}.zarr").schema  # which has sides
    assert boundary_frame(part, 1)[[0, -1]].all()


@pytest.fixture(scope="module")
def run(folder):
    box_of(folder, [70, 150, -40, -140], "pacific.zarr")
    arguments = [
        f"data.path={folder / 'pacific.zarr'}", "model=plain_vit_tiny", "model.embed_dim=32", "model.depth=1",
        "task.intervals=[12h..24h]", "task.score_lead_times=[12h,24h]", "task.boundary_rows=1", "reference_models=null",
        "trainer.max_steps=10", "trainer.num_threads=1", "optim.lr=5e-3", "optim.warmup_steps=2",
        f"runs_dir={folder / 'runs'}", "run=pacific",
    ]  # fmt: skip
    main("train", arguments)
    return RunFolder.find("pacific", str(folder / "runs"))


def test_edges_are_given_and_scores_are_inside(run):
    loaded = load_run(run)
    source, task = loaded.splits.test, loaded.task
    batch = source.collate([source.sample(n, np.random.default_rng(0)) for n in range(len(source))])
    with torch.no_grad():
        forecast = task.predict(loaded.model, batch).values["fields"]
    frame = torch.from_numpy(boundary_frame(loaded.splits.schema, 1))
    truth = batch.targets[:, 0]
    assert torch.equal(forecast[..., frame], truth[..., frame])
    assert not torch.equal(forecast[..., ~frame], truth[..., ~frame])
    rows = {(row["variable"], row["lead_time_h"]): row for row in run.scores() if row["metric"] == "rmse"}
    lead = batch.intervals[:, 0] == 12
    area = torch.from_numpy(
        np.broadcast_to(cell_area_weights(loaded.splits.schema.latitude)[:, None], frame.shape).copy()
    )
    area[frame] = 0
    for channel, name in enumerate(loaded.splits.schema.channels):
        error = (forecast - truth)[lead, channel].double()
        by_hand = ((error**2 * area).sum((-2, -1)) / area.sum()).mean().sqrt()
        assert rows[name, 12.0]["value"] == pytest.approx(float(by_hand), rel=1e-5)


def test_the_inside_depends_on_what_comes_in(run):
    loaded = load_run(run)
    source = loaded.splits.test
    batch = source.collate([source.sample(0, np.random.default_rng(0))])
    frame = torch.from_numpy(boundary_frame(loaded.splits.schema, 1))
    other = FieldBatch(**{**batch.__dict__, "targets": torch.where(frame, batch.targets + 5, batch.targets)})
    inner = FieldBatch(**{**batch.__dict__, "targets": torch.where(frame, batch.targets, batch.targets + 5)})
    with torch.no_grad():
        first, second, third = (loaded.task.predict(loaded.model, b).values["fields"] for b in (batch, other, inner))
    assert not torch.equal(first[..., ~frame], second[..., ~frame])
    assert torch.equal(first, third)  # nothing of the truth inside is given away


@pytest.mark.usefixtures("no_reports")
def test_a_forecast_of_a_region_from_a_file_of_the_globe(run, folder, globe, tmp_path, capsys):
    later = as_cds(globe).isel(time=slice(-5, None))
    later.to_netcdf(tmp_path / "later.nc")
    init = str(later.time.values[1])[:16]
    arguments = [f"run={run.path}", f"data.path={tmp_path / 'later.nc'}", f"init_time={init}", "lead_time=36h"]
    main("forecast", [*arguments, f"out={tmp_path / 'f.nc'}", "output=json"])
    assert json.loads(capsys.readouterr().out)["lead_times_h"] == [12, 24, 36]
    with xr.open_dataset(tmp_path / "f.nc") as forecast:
        np.testing.assert_allclose(forecast.longitude, np.arange(150, 221, 10))
        truth = later.t2m.sel(latitude=forecast.latitude, longitude=(forecast.longitude % 360).values)
        edge = forecast["2m_temperature"][0, :, 0]
        np.testing.assert_allclose(edge, truth.sel(time=forecast.valid_time[0])[:, 0], rtol=1e-6)
    as_cds(globe).isel(time=[-1], longitude=slice(0, 8)).to_netcdf(tmp_path / "elsewhere.nc")
    with pytest.raises(SystemExit):
        main("forecast", [f"run={run.path}", f"data.path={tmp_path / 'elsewhere.nc'}", f"out={tmp_path / 'g.nc'}"])
    assert "covers latitudes -85 to 85 and longitudes 0 to 70 in steps of 10" in capsys.readouterr().err


def test_edges_that_are_not_known_stay_as_they_are(run, folder, capsys):
    loaded = load_run(run)
    store = loaded.splits.test.store
    state = torch.from_numpy(store.read(np.array([len(store.times) - 1])))
    when, zero = torch.tensor([float(store.hours[-1])]).double(), torch.zeros(1).double()
    batch = FieldBatch(state, state, when, zero, zero[:, None] + 12, surroundings=Surroundings(store))
    with torch.no_grad():
        forecast = loaded.task.predict(loaded.model, batch).values["fields"]
    frame = torch.from_numpy(boundary_frame(loaded.splits.schema, 1))
    assert torch.equal(forecast[..., frame], state[..., frame])
    assert f"the data end at {store.times[-1]}: beyond, the region's edges stay" in capsys.readouterr().err


def test_an_evaluation_on_data_without_the_regions_points(run, folder, tmp_path):
    synthetic_source(num_times=20, step_hours=12, grid="16x8", channels=CHANNELS).to_netcdf(tmp_path / "coarse.nc")
    with pytest.raises(DataError, match=r"coarse\.nc: covers .* in steps of 22\.5 degrees; the points of the run"):
        load_run(run, overrides={"data.path": str(tmp_path / "coarse.nc")})


def test_errors_on_maps_are_those_inside_of_the_given_edges(run):
    example = WeatherExample.of(load_run(run).splits.schema, load_file(run.path / EXAMPLE))
    inside = ~boundary_frame(example.schema, 1)
    np.testing.assert_array_equal(example.frame, ~inside)
    error = np.random.default_rng(0).normal(size=inside.shape)
    area = np.cos(np.deg2rad(np.asarray(example.schema.latitude)))[:, None] * inside
    expected = np.sqrt((area * error**2).sum() / area.sum())
    assert example.rmse(error) == pytest.approx(expected, rel=1e-6)
    assert example.rmse(np.where(inside, error, 100.0)) == example.rmse(error)
    assert example.scored_part == "inside the given edges"
