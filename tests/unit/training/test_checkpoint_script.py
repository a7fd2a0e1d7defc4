"""scripts/checkpoint.py: inspect, verify, convert."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sciml.app.cli import main
from sciml.training.checkpoint import CheckpointStore


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints of different values; the first is the best."""
    folder = tmp_path / "runs" / "toy" / "one"
    store = CheckpointStore(folder / "checkpoints")
    (folder).mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text("{}")
    for step in (2, 4):
        store.save(step, tensors(step))
    store.mark_best(2, 0.1)
    return folder


def tensors(step):
    value = {"model.w": torch.full((3, 2), float(step)), "model.buffer": torch.tensor([7.0])}
    averaged = {"ema.w": torch.full((3, 2), step + 0.5).bfloat16()}
    return {**value, **averaged, "optim.w.step": torch.tensor(float(step))}


def said(capsys, run, *arguments):
    main("checkpoint", [f"runs_dir={run.parents[1]}", *arguments])
    return capsys.readouterr().out


def refused(capsys, run, *arguments):
    with pytest.raises(SystemExit) as ended:
        main("checkpoint", [f"runs_dir={run.parents[1]}", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_inspect_tells_what_is_in_it(run, capsys):
    document = json.loads(said(capsys, run, "output=json"))
    assert (document["step"], document["parameters"], document["averaged"]) == (2, 6, True)
    assert {"name": "ema.w", "shape": [3, 2], "dtype": "bfloat16", "bytes": 12, "pieces": 1} in document["tensors"]
    (file,) = document["files"]
    assert file["bytes"] == (run / "checkpoints" / "step-00000002" / file["name"]).stat().st_size
    text = said(capsys, run, f"path={run}", "checkpoint=latest")
    assert "step        4" in text
    assert "optim.w.step" not in text
    assert re.search(r"^optim  +1  +1  +0\.00$", text, re.MULTILINE)
    listed = said(capsys, run, f"path={run}", "checkpoint=latest", "tensors=true")
    assert re.search(r"^optim\.w\.step  +scalar  +float32", listed, re.MULTILINE)


def test_verify_names_the_bad_file(run, capsys):
    path = run / "checkpoints" / "step-00000004"
    assert "intact" in said(capsys, run, f"path={path}", "action=verify")
    file = next(path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert f"{file} is missing or corrupted" in refused(capsys, run, "checkpoint=latest", "action=verify")
    assert json.loads(said(capsys, run, "action=verify", "output=json"))["intact"] is True  # the best is another


@pytest.mark.parametrize(("weights", "expected"), [(None, 2.5), ("ema", 2.5), ("model", 2.0)])
def test_convert_writes_plain_weights(run, capsys, weights, expected):
    out = run / "weights.safetensors"
    chosen = [f"weights={weights}"] if weights else []
    document = json.loads(said(capsys, run, "action=convert", f"out={out}", "output=json", *chosen))
    assert document["tensors"] == 2
    found = load_file(out)
    assert found.keys() == {"w", "buffer"}
    assert torch.equal(found["w"].float(), torch.full((3, 2), expected))
    assert torch.equal(found["buffer"], torch.tensor([7.0]))
    with safe_open(out, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "step": "2", "weights": weights or "ema"}
    assert "is there already" in refused(capsys, run, "action=convert", f"out={out}")


def test_what_cannot_work_is_refused_in_one_sentence(run, capsys, tmp_path):
    assert "did you mean 'verify'?" in refused(capsys, run, "action=verfy")
    assert "out: a file to write is needed" in refused(capsys, run, "action=convert")
    assert "add action=convert" in refused(capsys, run, "weights=ema")
    assert "neither a checkpoint" in refused(capsys, run, f"path={tmp_path}")
    assert "known: best, latest, 2, 4" in refused(capsys, run, "checkpoint=9")
    CheckpointStore(run / "checkpoints").save(6, {"model.w": torch.zeros(2)})
    plain = ("checkpoint=latest", "action=convert", f"out={tmp_path / 'x.safetensors'}", "weights=ema")
    assert "holds no averaged weights; weights=model" in refused(capsys, run, *plain)
