"""Long work is never silent, and short work says one line."""

import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from sciml.core import progress
from sciml.core.progress import in_notebook, seconds_left, track, waiting
from sciml.training.callbacks import ProgressView


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


def test_time_left_falls_while_one_part_takes_long():
    assert [seconds_left(spent, 2, 4, 20.0) for spent in (20.0, 25.0, 30.0, 90.0)] == [20.0, 15.0, 10.0, 10.0]


@pytest.fixture
def outputs(monkeypatch):
    """Is what a notebook shows below a cell: a list of outputs, each of which may be replaced."""
    shown = []

    def display(data, *, raw, display_id):
        assert raw
        assert display_id
        number = len(shown)
        shown.append(data)
        return SimpleNamespace(update=lambda data, raw: shown.__setitem__(number, data))

    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(progress, "NOTEBOOK_INTERVAL_S", 0.0)
    return shown


def test_a_notebook_has_one_line_that_changes(outputs, capsys):
    assert in_notebook()
    assert list(track(range(100), "<reading>")) == list(range(100))
    view = ProgressView(100)
    for step in range(1, 101):
        view.on_step(step, {"loss": 1.0, "samples_per_s": 10.0})
    view.close()
    assert [output["text/plain"] for output in outputs] == [
        "<reading>: 100 done in 0 s",
        "step 100/100  loss 1.0000  10 samples/s  0 s left",
    ]
    assert "&lt;reading&gt;" in outputs[0]["text/html"]
    assert 'value="1.0000"' in outputs[1]["text/html"]
    assert capsys.readouterr().err == ""


def test_a_shell_of_ipython_is_no_notebook(monkeypatch):
    ipython = ModuleType("IPython")
    for shell in (None, SimpleNamespace()):
        ipython.get_ipython = lambda shell=shell: shell
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        assert not in_notebook()
