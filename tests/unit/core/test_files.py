import errno
import json

import pytest

from sciml.core.errors import RunError
from sciml.core.files import atomic_directory, atomic_file, write_json


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
