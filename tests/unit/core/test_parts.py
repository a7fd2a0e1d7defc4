from pathlib import Path

from sciml.core.parts import Parts


def write_number(path: Path, number: int) -> None:
    path.write_text(str(number))


def test_parts_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "made.txt", {}, ".txt")
    parts.path(1).write_text("kept")
    assert list(parts.make(write_number, 3)) == [0, 1, 2]
    assert [parts.path(number).read_text() for number in range(3)] == ["0", "kept", "2"]
    assert list(parts.make(write_number, 5, workers=2)) == [0, 1, 2, 3, 4]
    assert parts.path(4).read_text() == "4"


def test_parts_wait_for_the_same_settings_only(tmp_path: Path) -> None:
    out = tmp_path / "made.txt"
    parts = Parts(out, {"seed": 0, "cells": (2, 2)}, ".txt")
    parts.path(3).write_text("done")
    assert parts.path(3).name == "000003.txt"
    assert Parts(out, {"seed": 0, "cells": [2, 2]}, ".txt").path(3).read_text() == "done"
    other = Parts(out, {"seed": 1, "cells": (2, 2)}, ".txt")
    assert not other.path(3).exists()
    other.remove()
    assert not list(tmp_path.iterdir())
