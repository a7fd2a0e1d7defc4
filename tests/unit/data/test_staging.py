from pathlib import Path

import pytest

from sciml.core.errors import UnwritableError
from sciml.data.staging import JOURNAL, StagedParts, Staging, fingerprint


def write_number(path: Path, number: int) -> None:
    path.write_text(str(number))


def test_parts_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    parts = StagedParts(tmp_path / "made.txt", {}, ".txt")
    parts.path(1).write_text("kept")
    assert list(parts.make(write_number, 3)) == [0, 1, 2]
    assert [parts.path(number).read_text() for number in range(3)] == ["0", "kept", "2"]
    assert list(parts.make(write_number, 5, workers=2)) == [0, 1, 2, 3, 4]
    assert parts.path(4).read_text() == "4"


def test_parts_wait_for_the_same_settings_only(tmp_path: Path) -> None:
    out = tmp_path / "made.txt"
    parts = StagedParts(out, {"seed": 0, "cells": (2, 2)}, ".txt")
    parts.path(3).write_text("done")
    assert parts.path(3).name == "000003.txt"
    assert StagedParts(out, {"seed": 0, "cells": [2, 2]}, ".txt").path(3).read_text() == "done"
    other = StagedParts(out, {"seed": 1, "cells": (2, 2)}, ".txt")
    assert not other.path(3).exists()
    other.remove()
    assert not list(tmp_path.iterdir())


def test_the_same_work_goes_on_and_other_work_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "store"
    staging = Staging(out, {"source": "a.nc", "levels": (500, 850)})
    staging.record(blocks=3)
    assert Staging(out, {"source": "a.nc", "levels": [500, 850]}).journal["blocks"] == 3
    assert "blocks" not in Staging(out, {"source": "b.nc"}).journal


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"identity": 1}', "\xff"])
def test_a_damaged_journal_is_as_none(tmp_path: Path, text: str) -> None:
    staging = Staging(tmp_path / "store", "work")
    staging.record(blocks=3)
    (staging.folder / JOURNAL).write_text(text, encoding="latin-1")
    assert Staging(tmp_path / "store", "work").journal == {"identity": "work"}


def test_a_finished_store_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    out = tmp_path / "store"
    for version in ("old", "new"):
        staging = Staging(out, version)
        staging.store.mkdir()
        (staging.store / version).touch()
        staging.publish()
    assert [path.name for path in tmp_path.rglob("*")] == ["store", "new"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError, match=r"could not write .*store: .*file is no folder"):
        Staging(tmp_path / "file" / "store", "work")


def test_a_fingerprint_follows_files_and_settings(tmp_path: Path) -> None:
    file, folder = tmp_path / "a.nc", tmp_path / "b.zarr"
    file.write_text("1")
    (folder / "t2m").mkdir(parents=True)
    (folder / ".zattrs").write_text("{}")
    before = fingerprint([str(file), str(folder), "gs://bucket/c.zarr"], {"step": 6})
    assert before == fingerprint([str(file), str(folder), "gs://bucket/c.zarr"], {"step": 6})
    assert before != fingerprint([str(file), str(folder), "gs://bucket/c.zarr"], {"step": 12})
    file.write_text("12")
    changed = fingerprint([str(file), str(folder), "gs://bucket/c.zarr"], {"step": 6})
    assert changed != before
    (folder / ".zattrs").write_text('{"title": "other"}')
    assert fingerprint([str(file), str(folder), "gs://bucket/c.zarr"], {"step": 6}) != changed
