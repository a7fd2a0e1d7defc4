import gzip
import json

import pytest
import torch

from sciml.training.trace import Trace


def _run(trace, num_steps, size=16):
    for step in range(1, num_steps + 1):
        with torch.profiler.record_function(f"training step {step}"):
            torch.ones(size, size) @ torch.ones(size, size)
        trace.on_step(step, {})
    trace.close()


def _steps(folder):
    events = json.loads(gzip.decompress((folder / "trace-rank3.json.gz").read_bytes()))["traceEvents"]
    names = {event.get("name", "") for event in events}
    assert "aten::mm" in names
    return sorted(int(name.split()[-1]) for name in names if name.startswith("training step"))


def test_the_steps_asked_for_are_in_the_files(tmp_path):
    _run(Trace(tmp_path, rank=3, steps=2), 8)
    assert _steps(tmp_path) == [4, 5]
    table = (tmp_path / "trace-rank3.txt").read_text()
    assert "aten::mm" in table
    assert "Self CPU" in table


def test_a_run_that_ends_early_leaves_what_it_has(tmp_path):
    _run(Trace(tmp_path, rank=3, steps=5), 5)
    assert _steps(tmp_path) == [4, 5]


@pytest.mark.parametrize(("steps", "run"), [(0, 8), (3, 1), (3, 2)])
def test_no_file_where_nothing_was_traced(tmp_path, steps, run):
    _run(Trace(tmp_path, rank=3, steps=steps), run)
    assert list(tmp_path.iterdir()) == []
