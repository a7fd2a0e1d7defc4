"""Long work is never silent, and short work says one line."""

import time

from sciml.core import progress
from sciml.core.progress import track, waiting


def test_short_work_says_one_line(capsys):
    assert list(track(range(3), "reading")) == [0, 1, 2]
    assert capsys.readouterr().err.splitlines() == ["reading: 3 done in 0 s"]


def test_one_long_part_is_no_silence(capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_S", 0.05)
    for _ in track(range(2), "simulating"):
        time.sleep(0.1)
    with waiting("measuring"):
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["simulating: 0/2, 0 s", "simulating: 2 done in 0 s", "measuring: 0 s"]
