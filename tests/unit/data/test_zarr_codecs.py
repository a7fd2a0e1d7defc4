"""Stores whose arrays could run code are refused before any array is opened."""

import json
import pickle

import fsspec
import numpy as np
import pytest
import xarray as xr

from domains.climate.data.readers.files import open_file
from sciml.core.errors import DataError
from sciml.data.zarr_codecs import check_codecs

pytestmark = pytest.mark.filterwarnings("ignore:.*onsolidated metadata")

PICKLE = {"id": "pickle", "protocol": 5}


def store(path, zarr_format=2, **options):
    data = xr.Dataset({"t": ("x", np.arange(4.0)), "name": ("x", np.array(list("abcd"), dtype=object))})
    data.to_zarr(path, zarr_format=zarr_format, **options)
    return path


def change(file, **entries):
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, **entries}))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
def test_numbers_times_and_text_are_opened(zarr_format, consolidated, tmp_path):
    times = np.array(["2001-01-01", "2001-01-02"], dtype="datetime64[ns]")
    path = store(tmp_path / "a.zarr", zarr_format, consolidated=consolidated)
    xr.Dataset(coords={"time": times}).to_zarr(path, mode="a", zarr_format=zarr_format, consolidated=consolidated)
    check_codecs(str(path))
    assert open_file(str(path))[0]["name"].values.tolist() == list("abcd")


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize(
    "entries",
    [
        {"filters": [PICKLE], "dtype": "|O"}, {"filters": [PICKLE]}, {"compressor": PICKLE}, {"filters": PICKLE},
        {"compressor": "pickle"}, {"dtype": "|O", "filters": None}, {"dtype": [["a", "<f4"]]}, {"dtype": "|V8"},
        {"dtype": "|O", "filters": [{"id": "json2"}]}, {"dtype": None}, {"compressor": {"id": "numcodecs.pickle"}},
        {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, PICKLE]}, {"compressor": {"name": "blosc"}},
    ],
)  # fmt: skip
def test_format_2(entries, consolidated, tmp_path):
    path = store(tmp_path / "a.zarr", consolidated=consolidated)
    change(path / "t" / ".zarray", **entries)
    (path / "t" / "0").write_bytes(pickle.dumps(Ran(tmp_path / "ran")))
    with pytest.raises(DataError, match=r"the array t has the (codec|type)"):
        open_file(str(path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "entries",
    [
        {"data_type": "object"}, {"data_type": {"name": "struct"}}, {"codecs": [{"name": "numcodecs.pickle"}]},
        {"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "pickle"}]}}]}, {"codecs": None},
        {"codecs": "bytes pickle"},
    ],
)  # fmt: skip
def test_format_3(entries, tmp_path):
    path = store(tmp_path / "a.zarr", 3, consolidated=False)
    change(path / "t" / "zarr.json", **entries)
    with pytest.raises(DataError, match=r"the array t has the (codec|type)"):
        open_file(str(path))


def test_what_only_consolidated_metadata_say_is_refused_too(tmp_path):
    two, three = store(tmp_path / "2.zarr"), store(tmp_path / "3.zarr", 3)
    document = json.loads((two / ".zmetadata").read_text())
    document["metadata"]["t/.zarray"]["filters"] = [PICKLE]
    (two / ".zmetadata").write_text(json.dumps(document))
    document = json.loads((three / "zarr.json").read_text())
    document["consolidated_metadata"]["metadata"]["t"]["codecs"] = [{"name": "pickle"}]
    (three / "zarr.json").write_text(json.dumps(document))
    for path in (two, three):
        with pytest.raises(DataError, match=r"the array t has the codec 'pickle'"):
            check_codecs(str(path))


def test_remote_stores_and_groups_within_are_looked_through(tmp_path):
    path = store(tmp_path / "a.zarr", consolidated=False, group="inner/most")
    change(path / "inner" / "most" / "t" / ".zarray", filters=[PICKLE])
    fsspec.filesystem("memory").put(str(path), f"/{tmp_path.name}.zarr", recursive=True)
    for address in (str(path), f"memory://{tmp_path.name}.zarr"):
        with pytest.raises(DataError, match="the array inner/most/t has the codec"):
            check_codecs(address)


@pytest.mark.parametrize("text", ["{", "[]", "3", '"a"', "{}", "[" * 100_000])
def test_metadata_of_another_form_are_named(text, tmp_path):
    path = store(tmp_path / "a.zarr", consolidated=False)
    (path / "t" / ".zarray").write_text(text)
    with pytest.raises(DataError, match=r"a\.zarr"):
        open_file(str(path))


class Ran:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (self.path.__class__.touch, (self.path,))
