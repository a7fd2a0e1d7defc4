"""The models that come with the project are small, open anywhere, and do what they are for without their data."""

import ase.io
import numpy as np
import pytest
import xarray as xr

import sciml
from sciml.core.installation import ROOT, located
from sciml.run.folder import RunFolder

MODELS = sorted(path.parent for path in (ROOT / "models").glob("*/run.json"))
MOST_BYTES = 10 * 2**20


@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_a_model_is_small_and_says_where_it_comes_from(folder):
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MOST_BYTES
    record = RunFolder(folder).record
    assert record["domain"] == folder.name
    assert record["config"]["seed"] == 0
    assert record["provenance"]["git"]["commit"]
    assert "## Scores" in (folder / "README.md").read_text()


def test_every_domain_has_one():
    assert {folder.name for folder in MODELS} == {"climate", "fluids", "language", "materials"}


def test_weather_is_forecast_better_than_by_persistence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with xr.open_zarr(located("data/climate/simulated_archive.zarr")) as archive:
        start, truth = archive.isel(time=[1200]).load(), archive.isel(time=1206).load()
    forecast = sciml.load("models/climate").forecast(start, "72h").isel(time=0, prediction_timedelta=-1)
    error, persistence = (
        np.sqrt(((state["geopotential"] - truth["geopotential"]) ** 2).mean()).item()
        for state in (forecast, start.isel(time=0))
    )
    assert error < 0.6 * persistence


def test_a_flow_is_forecast_better_than_by_persistence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = located("data/fluids/flow.nc")
    with xr.open_dataset(path) as flows:
        theta = flows["theta"].isel(member=0).load()
    forecast = sciml.load("models/fluids").forecast(None, "100s", **{"data.path": path})
    at_100_s = forecast["theta"].squeeze().isel(time=-1).values
    truth, start = theta.sel(time=100.0).values, theta.sel(time=0.0).values
    assert np.square(at_100_s - truth).mean() < 0.5 * np.square(start - truth).mean()


def test_alloys_are_predicted():
    alloys = ase.io.read(located("data/materials/alloys.extxyz"), ":")
    predicted = sciml.load("models/materials").predict(alloys)
    errors = [
        (a.get_potential_energy() - b.get_potential_energy()) / len(a) for a, b in zip(alloys, predicted, strict=True)
    ]
    assert np.abs(errors).mean() < 0.05  # eV/atom; energies of mixing differ by ten times as much
    forces = [np.abs(a.get_forces() - b.get_forces()).mean() for a, b in zip(alloys, predicted, strict=True)]
    assert np.mean(forces) < 0.2


def test_text_is_written_on():
    written = sciml.load("models/language").write("Call me Ishmael. ", 100)
    assert sum(letter.isalpha() or letter.isspace() for letter in written) > 60
