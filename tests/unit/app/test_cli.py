"""What all commands do alike."""

import os
import sys

from sciml.app.cli import main


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        main("plan", ["--cfg"])
