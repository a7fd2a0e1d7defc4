"""Whatever a user gets wrong ends in one sentence and exit code 2, before anything is written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from domains.climate.data.synthetic import synthetic_source
from sciml.app.cli import main
from tests.reports import without_reports

ROOT = Path(__file__).resolve().parents[2]
TOY = ["--config-dir", str(ROOT / "tests" / "conformance" / "toy" / "conf"), "domain=toy"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trainer.max_stps=3"], "trainer.max_stps: unknown key; did you mean 'trainer.max_steps'"),
        (["trianer.max_steps=3"], "trianer: unknown key; did you mean 'trainer'"),
        (["sed=3"], "sed: unknown key; did you mean 'seed'"),
        (["max_steps=5"], "max_steps: unknown key; did you mean 'trainer.max_steps'"),
        (["lr=1"], "lr: unknown key; did you mean 'optim.lr'"),
        (["epochs=3"], "epochs: unknown key; did you mean 'trainer.max_steps'"),
        (["batch_size=4"], "batch_size: unknown key; did you mean 'trainer.global_batch_size'"),
        (["tp=2"], "tp: unknown key; did you mean 'parallel.tp'"),
        (["optim.learning_rate=1"], "optim.learning_rate: unknown key; did you mean 'optim.lr'"),
        (["domain=weather"], "domain: unknown option 'weather'; did you mean 'climate'"),
        (["model=1b"], "model: unknown option '1b'; did you mean 'vit_1b'"),
        (["model=vit_tny"], "model: unknown option 'vit_tny'; did you mean 'vit_tiny'"),
        (["domain=climat"], "domain: unknown option 'climat'; did you mean 'climate'"),
        (["optim=adam"], "optim: unknown option 'adam'; did you mean 'adamw'"),
        (["trainer.max_steps=many"], "trainer.max_steps must be a whole number, got 'many'"),
        (["trainer.max_steps=-1"], "trainer.max_steps must be at least 1, got -1; try trainer.max_steps=1000"),
        (["trainer.precision=fp64"], "trainer.precision must be one of auto, fp32, bf16, fp16, got 'fp64'"),
        (["model.num_heads=5"], "model.num_heads must divide model.embed_dim, got 5 and 128"),
        (["model.patch_size=5"], "patch"),
        (["data.path=nowhere.nc"], "nowhere.nc"),
        (["data.chanels=[t2m]"], "data.chanels: unknown key; did you mean 'data.channels'"),
        (["data.channels=[t2n]"], "t2n"),
        (["task.intervals=[70h]"], "task.intervals: 70 h is not a multiple of the data's step of 12 h; .*: 72h"),
        (["task.intervals=[soon]"], "task.intervals: 'soon' is no duration"),
        (["task.intervals=[72h]", "task.score_lead_times=[36h]"], "task.score_lead_times: no interval"),
        (["task.forcings=[moon]"], "task.forcings must be one of .*, got 'moon'"),
        (["parallel.tp=2"], "parallel.tp: tp 2 does not fit one process; .*start 2 processes with torchrun"),
        (["parallel.dp=2"], "parallel.dp: dp 2 does not fit one process; parallel.dp=1"),
        (["trainer.global_batch_size=10", "trainer.micro_batch_size=4"], "trainer.micro_batch_size: .* cannot be cut"),
        (["resume=latest"], "resume: there is no run"),
        (["init_from=yesterday"], "init_from: there is no run 'yesterday'"),
        (["resume=a", "init_from=b"], "init_from: cannot be given together with resume"),
        (["trainer.device=abacus"], "trainer.device must be one of auto, cpu, cuda, xpu, mps, got 'abacus'"),
        (["output=yaml"], "output must be one of text, json, got 'yaml'"),
        (["trainer.num_threads=100000"], "trainer.num_threads must be at most .* on this machine, got 100000"),
        (["just a word"], "key=value"),
        ([""], "'' is no override; write key=value"),
        (["--config-dir", "nowhere"], "--config-dir: nowhere is no folder"),
    ],
)  # fmt: skip
def test_training_refuses(refused, arguments, says):
    said = refused("train", *arguments)
    assert re.search(says, said), said


def test_a_model_that_does_not_serve_the_domain_is_refused_before_data_are_read(refused):
    said = refused("train", *TOY, "data.num_samples=-1", "model.kind=gnn")
    assert "a model of kind 'gnn' cannot serve domain=toy, which takes vit" in said


@pytest.mark.parametrize(
    ("verb", "arguments", "says"),
    [
        ("forecast", [], "run: there is no run"),
        ("evaluate", ["run=nothing"], "run: there is no run 'nothing'"),
        ("report", ["runn=latest"], "runn: unknown key; did you mean 'run'"),
        ("forecast", ["lead_tme=72h"], "lead_tme: unknown key; did you mean 'lead_time'"),
        ("prepare", [], "path"),
        ("prepare", ["path=nowhere.nc", "out=x.zarr"], "nowhere.nc"),
        ("prepare", ["path=a", "out=b", "gird=64x32"], "gird: unknown key; did you mean 'grid'"),
        ("prepare", ["domain=chemistry"], "domain: unknown option 'chemistry'"),
        ("prepare", ["domain=materials"], "path: no source is named; e.g. path=structures.extxyz"),
        ("train", ["domain=materials", "model.layer=pna"], "model.layer: pna is not smooth"),
        ("simulate", ["days=0"], "days must be at least 1, got 0; try days=365"),
        ("doctor", ["processes=1"], "processes must be at least 2, got 1; 0 leaves the check out"),
    ],
)
def test_other_commands_refuse(refused, verb, arguments, says):
    assert says in refused(verb, *arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    synthetic_source(num_times=120, step_hours=12).to_zarr(folder / "waves.zarr", zarr_format=2)
    arguments = [
        f"data.path={folder / 'waves.zarr'}", f"data.cache={folder / 'cache'}", "data.augment=none", "model.depth=1",
        "model=plain_vit_tiny", "reference_models=null",
        "model.embed_dim=16", "model.num_heads=2", "trainer.max_steps=4", "trainer.save_every=2",
        "task.intervals=[24h]", "task.score_lead_times=[24h]", "trainer.num_threads=1", "run=one",
        f"runs_dir={folder / 'runs'}",
    ]  # fmt: skip
    with without_reports():
        main("train", arguments)
    return folder


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lead_time=30h"], "lead_time: 30 h is not a multiple of the data's step of 12 h"),
        (["lead_time=36h"], r"lead_time: no steps that the model was trained on \(24h\) lead to 36 h; for example 24h"),
        (["every=12h"], "every: the model was not trained on this interval; one of 24h"),
        (["init_time=2001-01-01T05"], "init_time: the data have no state at 2001-01-01T05:00; the nearest is"),
        (["init_time=someday"], "init_time: 'someday' is no date"),
        (["members=0"], "members must be at least 1, got 0"),
        (["out=forecast.grib"], "out: 'forecast.grib' does not end in .zarr or .nc"),
        (["checkpoint=17"], "checkpoint: .*known: best, latest, 2, 4"),
        (["data.channels=[t2m]"], "data.channels: the model was trained on .*; leave it out"),
    ],
)
def test_forecasts_refuse(trained, capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        main("forecast", [f"runs_dir={trained / 'runs'}", *arguments])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2
    assert re.search(says, said), said


def test_a_run_is_not_overwritten_and_a_checkpoint_of_another_shape_is_refused(trained, capsys):
    values = [f"data.path={trained / 'waves.zarr'}", f"data.cache={trained / 'cache'}", "data.augment=none",
              "model=plain_vit_tiny", "reference_models=null", "task.intervals=[24h]",
              "task.score_lead_times=[24h]", f"runs_dir={trained / 'runs'}"]  # fmt: skip
    for arguments, says in (
        ([*values, "run=one"], "run: .* is there already"),
        ([*values[-1:], "resume=one", "model.embed_dim=32"], r"model.embed_dim: .* cannot resume with 32"),
        ([*values, "init_from=one", "model.depth=1", "model.embed_dim=32"], "init_from: only .*% of this model fits"),
    ):
        with pytest.raises(SystemExit) as ended:
            main("train", arguments)
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert ended.value.code == 2
        assert re.search(says, said), said


def test_what_a_model_refuses_of_the_data_is_said_before_a_folder_is_made(trained, tmp_path, capsys):
    values = [f"data.path={trained / 'waves.zarr'}", f"data.cache={trained / 'cache'}", "data.augment=none",
              "reference_models=null", f"runs_dir={tmp_path / 'runs'}"]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main("train", [*values, "model.tiles=[50,1]"])
    assert ended.value.code == 2
    assert "model.tiles: " in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main("train", ["domain=fluids", "model=sfno_tiny", f"runs_dir={tmp_path / 'runs'}"])
    assert ended.value.code == 2
    assert "model.degrees: flows lie in a plane" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_corrupted_checkpoint_is_named(trained, capsys):
    file = next((trained / "runs" / "climate" / "one" / "checkpoints" / "step-00000004").glob("*.safetensors"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    try:
        with pytest.raises(SystemExit) as ended:
            main("forecast", [f"runs_dir={trained / 'runs'}", "checkpoint=latest", "lead_time=24h"])
        assert ended.value.code == 2
        assert f"{file} is missing or corrupted" in capsys.readouterr().err
    finally:
        file.write_bytes(whole)


def test_a_script_exits_with_2_and_no_traceback():
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "trainer.max_stps=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == "error: trainer.max_stps: unknown key; did you mean 'trainer.max_steps'?\n"
    assert done.stdout == ""


@pytest.mark.parametrize("wrong", ["trainer.max_stps=3", "lr=1", "domain=weather", "parallel.tp=0"])
def test_what_is_wrong_in_any_domain_is_answered_before_torch_is_imported(wrong):
    program = f"""
import sys
from sciml.app.cli import main
try:
    main("train", [{wrong!r}])
except SystemExit as end:
    assert end.code == 2
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stderr.startswith("error: ")
    assert done.stdout == "False\n"
