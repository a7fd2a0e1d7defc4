"""Files that stay open: the same again, anew where they changed, and closed at once where there are too many."""

import gc
import os

import pytest

from domains.fluids.data.readers import kept_open
from sciml.core.errors import DataError


class File:
    def __init__(self, name: str) -> None:
        self.name, self.is_open = name, True
        self.itself = self  # as NetCDF files refer to themselves by their variables

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def opened(monkeypatch):
    monkeypatch.setattr(kept_open, "MOST", 3)
    return kept_open.kept_open(File)


@pytest.fixture
def names(tmp_path):
    paths = [tmp_path / f"{number}.nc" for number in range(5)]
    for path in paths:
        path.write_text("flow")
    return [str(path) for path in paths]


def test_the_one_not_asked_for_longest_is_closed_without_waiting_for_garbage(opened, names):
    gc.disable()
    try:
        files = [opened(name) for name in names[:3]]
        assert opened(names[0]) is files[0]
        opened(names[3])
        assert [file.is_open for file in files] == [True, False, True]
        assert opened(names[1]) is not files[1]
    finally:
        gc.enable()


def test_a_file_that_has_changed_is_opened_anew(opened, names):
    first = opened(names[0])
    os.utime(names[0], ns=(1, 1))
    assert opened(names[0]) is not first
    os.remove(names[0])
    with pytest.raises(DataError, match=r"0\.nc: cannot be read"):
        opened(names[0])
