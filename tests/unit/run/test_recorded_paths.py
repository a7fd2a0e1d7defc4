"""A run says of its data where they are, so that it opens from any folder."""

from pathlib import Path

from sciml.core import installation
from sciml.core.installation import ROOT
from sciml.run.compose import compose
from sciml.run.spec import RunSpec


def data_of(*arguments):
    spec = RunSpec.build(compose("train", list(arguments)).config)
    return spec.data, spec.config["data"]


def test_committed_data_are_kept_relative_and_found_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed, kept = data_of("domain=climate")
    assert kept["path"] == "data/climate/simulated_archive.zarr"
    assert typed.path == str(ROOT / kept["path"])


def test_own_data_are_kept_absolute_in_every_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.nc").touch()
    assert data_of("domain=climate", "data.path=a.nc")[1]["path"] == str(tmp_path / "a.nc")
    assert data_of("domain=climate", "data.path=[a.nc,b*.nc]")[1]["path"] == [
        str(tmp_path / n) for n in ("a.nc", "b*.nc")
    ]
    path = data_of("domain=materials", "data.path={mine: m.extxyz, old: data/materials/hea_eam.extxyz.xz}")[1]["path"]
    assert path == {"mine": str(tmp_path / "m.extxyz"), "old": "data/materials/hea_eam.extxyz.xz"}
    assert data_of("domain=fluids")[1]["path"] is None
    assert data_of("domain=fluids", "data.path={a: [x.nc, y.nc]}")[0].path == {
        "a": [str(tmp_path / "x.nc"), str(tmp_path / "y.nc")]
    }


def test_the_cache_is_found_again_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(installation, "ROOT", tmp_path / "installed")
    assert data_of("domain=fluids")[1]["cache"] == str(tmp_path / "data" / "cache")
