"""What is named and is no file is told for what it is."""

import os

import pytest

from sciml.core.errors import DataError
from sciml.data.files import locate

KINDS = {"in_folder": lambda folder: sorted(map(str, folder.glob("*.nc"))), "kinds": "NetCDF"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fifo.nc", r"fifo\.nc: is neither a file nor a folder"),
        ("zero.nc", r"zero\.nc: is neither a file nor a folder"),
        ("flwo.nc", r"flwo\.nc: no such file or folder; did you mean 'flow\.nc'"),
        ("nowhere/flow.nc", r"no such file or folder \(there is no folder .*nowhere either\)"),
        ("*.grib", r"no file matches"),
        ("empty", r"empty: the folder has no NetCDF in it"),
    ],
)
def test_what_cannot_be_read(name, says, tmp_path):
    (tmp_path / "flow.nc").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "zero.nc").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo.nc")
    with pytest.raises(DataError, match=says):
        locate(str(tmp_path / name), **KINDS)


def test_a_folder_whose_names_cannot_be_read_is_no_reason_to_fail(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(DataError, match="no such file or folder"):
        locate(str(tmp_path / "a.nc"), **KINDS)
