import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typing_extensions import TypedDict

from sciml.core.errors import DataError, RunError, SciMLError, UnwritableError
from sciml.core.files import (
    allocate,
    atomic_directory,
    atomic_file,
    check_writable,
    disk_errors,
    in_a_sentence,
    read_json,
    read_json_lines,
    write_json,
    write_text,
)
from sciml.core.lock import exclusive


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"x": 1})

    def fail():
        with atomic_file(target) as temporary:
            temporary.write_text("half")
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        fail()
    assert json.loads(target.read_text()) == {"x": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    target = tmp_path / "store"
    for content in ("old", "new"):
        with atomic_directory(target) as temporary:
            (temporary / "file").write_text(content)
    assert (target / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_said_in_one_sentence_and_leaves_the_old_file(tmp_path):
    target = tmp_path / "store"
    with atomic_directory(target) as temporary:
        (temporary / "file").write_text("old")

    def fail():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("writer broke") from error  # libraries wrap what the system says

    with pytest.raises(RunError, match="the disk is full"), atomic_directory(target):
        fail()
    assert (target / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


class Row(TypedDict):
    name: str
    value: float


def test_what_was_written_is_read_back_with_keys_beyond_its_type(tmp_path):
    rows = [{"name": "a", "value": 1.5, "more": [1]}, {"name": "b", "value": float("inf")}]
    write_json(tmp_path / "a.json", rows)
    assert read_json(tmp_path / "a.json", list[Row]) == rows
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"name": "ha')
    assert read_json_lines(tmp_path / "a.jsonl", Row) == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[{", "is corrupted: it is no JSON (Expecting property name enclosed in double quotes: line 1 column 3"),
        ("", "is corrupted: it is no JSON (Expecting value"),
        ("{}", "is corrupted: it must be a list, got {}; make it again"),
        ('[{"name": "a"}]', "is corrupted: 0.value is missing; make it again"),
        ('[{"name": "a", "value": "high"}]', "is corrupted: 0.value must be a number, got 'high'; make it again"),
        ('[{"name": 1, "value": 1}]', "is corrupted: 0.name must be text, got 1; make it again"),
        ("[7]", "is corrupted: 0 must be a group of keys, got 7; make it again"),
    ],
)
def test_a_document_of_another_form_names_the_file_and_the_part(tmp_path, text, says):
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(DataError) as refused:
        read_json(file, list[Row], advice="make it again")
    assert str(refused.value).startswith(f"{file} {says}")
    assert str(refused.value).endswith("; make it again")


def test_a_missing_file_and_bytes_that_are_no_text_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.json is missing; make it again"):
        read_json(tmp_path / "a.json", dict, advice="make it again")
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"a\.json is corrupted: .*decode"):
        read_json(tmp_path / "a.json", dict)


def test_a_corrupted_line_is_named_by_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"name": "a", "value": 1}\n{"name": "b"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 2, is corrupted: value is missing"):
        read_json_lines(tmp_path / "a.jsonl", Row)


def _enter(context):
    with context:
        pass


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_json(path, {}),
        lambda path: write_text(path, ""),
        lambda path: _enter(atomic_directory(path)),
        lambda path: _enter(exclusive(path)),
        check_writable,
        lambda path: allocate(path, 10),
    ],
)
def test_a_place_that_cannot_be_written_is_a_sentence(write, tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "inside", Path("/proc/nowhere/inside"), tmp_path / ("x" * 300)):
        with pytest.raises(SciMLError, match="could not write"):
            write(place)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_only_be_read_is_named(number, tmp_path):
    with pytest.raises(UnwritableError) as refused, disk_errors(tmp_path / "runs" / "one"):
        raise OSError(number, "no", f"{tmp_path}/runs/tmp1")
    said = f"could not write {tmp_path}/runs/one: {os.strerror(number).lower()} in {tmp_path}; work in a folder"
    assert str(refused.value).startswith(said)
    assert refused.value.exit_code == 2


def test_writability_is_tried_where_a_folder_is_to_be_made_and_leaves_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_a_map_has_its_bytes_before_it_is_written(tmp_path, monkeypatch):
    allocate(tmp_path / "a", 5000)
    assert (tmp_path / "a").stat().st_size == 5000
    assert (tmp_path / "a").stat().st_blocks * 512 >= 5000

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError, match="the disk is full"):
        allocate(tmp_path / "b", 5000)


def test_what_libraries_make_of_a_full_disk_is_understood(tmp_path):
    with pytest.raises(RunError, match=r"could not write .*a: .*No such file"), disk_errors(tmp_path / "a"):
        save_file({"a": torch.zeros(2)}, tmp_path / "nowhere" / "a")
    for error in (RuntimeError("NetCDF: HDF error"), ValueError("write failed: No space left on device (os error 28)")):
        with pytest.raises(RunError, match="could not write"), disk_errors(tmp_path):
            raise error
    with pytest.raises(ValueError, match="a bug"), disk_errors(tmp_path):
        raise ValueError("a bug")


def test_a_sentence_is_not_said_anew(tmp_path):
    def fail():
        try:
            (tmp_path / "nowhere").read_text()
        except OSError:
            raise DataError("nowhere is missing") from None

    with pytest.raises(DataError, match="nowhere is missing"), disk_errors(tmp_path):
        fail()


def test_errors_of_the_system_become_sentences_and_bugs_do_not():
    assert "No such file" in str(in_a_sentence(FileNotFoundError(errno.ENOENT, "No such file or directory", "a")))
    assert "the disk is full" in str(in_a_sentence(OSError(errno.ENOSPC, "No space left on device")))
    assert isinstance(in_a_sentence(MemoryError()), RunError)
    for error in (KeyboardInterrupt(), ValueError("a bug"), DataError("wrong"), ConnectionResetError("gone")):
        assert in_a_sentence(error) is error
