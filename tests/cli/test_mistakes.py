"""Mistakes of a new user, verb by verb: one sentence that helps, exit code 2, and nothing written."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest

import sciml
from sciml.__main__ import main as sciml_command
from sciml.app.cli import main
from sciml.core.errors import ConfigError, DataError, SciMLError
from sciml.core.installation import ROOT

CLIMATE, FLUIDS, MATERIALS, LANGUAGE = (f"run=models/{name}" for name in ("climate", "fluids", "materials", "language"))
ALLOYS = "structures=data/materials/alloys.extxyz"
LONG = "x" * 300


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Is a working folder with what is mistaken for something else."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file.txt").write_text("hello\n")
    Path("empty.extxyz").touch()
    os.symlink("loop", "loop")
    os.symlink("gone.nc", "link.nc")
    Path("list.yaml").write_text("- a\n")
    Path("mine.yaml").write_text("domain: climate\nrun: one\ntrainer: {max_steps: -1}\n")
    Path("one").mkdir()
    Path("one/run.json").write_text('{"domain": "climate", "config": {"seed": 1}, "samples": {}}')
    Path("own/domain").mkdir(parents=True)
    Path("own/domain/mine.yaml").write_text("- a\n")
    shutil.copytree(ROOT / "models" / "language", "broken")
    Path("broken/model.safetensors").unlink()
    return tmp_path


def contents(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("verb", "arguments", "says"),
    [
        ("forecast", ["run=empty"], "run: there is no run 'empty'; known: latest, models/climate"),
        ("forecast", ["run=models/climat"], "did you mean 'models/climate'"),
        ("forecast", [f"run={LONG}"], "run: there is no run 'xxx"),
        ("forecast", [CLIMATE, f"data.path={LONG}.nc"], "a name in it is longer than 255 bytes"),
        ("forecast", [CLIMATE, "data.path=loop"], "loop: is a link to loop, which is not there"),
        ("forecast", [CLIMATE, "data.path=link.nc"], "link.nc: is a link to gone.nc, which is not there"),
        ("forecast", [CLIMATE, "lead_time=0h"], "lead_time must be above 0, got 0"),
        ("predict", [CLIMATE, ALLOYS], "run: predict is not for domain=climate"),
        ("thermodynamics", [FLUIDS, "elements=CoCr"], "run: thermodynamics is not for domain=fluids"),
        ("predict", [MATERIALS, "structures=empty.extxyz"], "empty.extxyz: the file is empty"),
        ("predict", [MATERIALS, f"structures={LONG}"], "a name in it is longer than 255 bytes"),
        ("predict", [MATERIALS, "structures=loop"], "loop: is a link to loop"),
        ("screen", [MATERIALS, "elements=CoCu", "hull=nowhere"], "nowhere: no such file or folder"),
        ("screen", [MATERIALS, "elements=CoCu", "lattices=fcc"], "got 'fcc'; try lattices=[fcc]"),
        ("thermodynamics", [MATERIALS, "elements=CoCr", "temperatures=[]"], "temperatures must be at least one"),
        ("evaluate", [CLIMATE, "task.score_lead_times=72h"], "try task.score_lead_times=[72h]"),
        ("export", [CLIMATE, f"out={LONG}"], "the name is too long for a file"),
        ("checkpoint", [f"path={LONG}"], "the name is too long for a file"),
        ("prepare", ["domain=fluids", "path=a.nc"], "prepare is not for domain=fluids; it is for climate"),
        ("simulate", ["domain=language"], "domain: simulate is not for domain=language"),
        ("simulate", ["domain=materials", "elements=CoCr"], "elements: unknown key; known: compositions, count"),
        ("prepare", ["path=data/climate/era5_week.nc", "out=a.zarr", "channels=[nope]"], "more"),
        ("runs", ["domain=chemistry"], "there is no run under runs/chemistry/"),
        ("runs", ["action=delete", "run=models/climate", "--force"], "comes with the project"),
        ("train", ["trainer=3"], "trainer must be the name of an option, got 3; known: default"),
        ("train", ["domain="], "domain: unknown option ''; known: climate"),
        ("train", ["domain=null"], "domain must be the name of an option, got null; known: climate"),
        ("train", ["domain=language", "run=a/b"], "run must be a name, got 'a/b'"),
        ("train", ["domain=language", "run=../../a"], "run must be a name, got '../../a'"),
        ("train", ["domain=language", "run=latest"], "run must be a name, got 'latest'"),
        ("train", ["--cfg", "trainer.max_stps=3"], "trainer.max_stps: unknown key; did you mean 'trainer.max_steps'"),
        ("train", ["trainer.learning_rate=1"], "trainer.learning_rate: unknown key; did you mean 'optim.lr'?"),
        ("train", ["data.batch_size=1"], "data.batch_size: unknown key; did you mean 'trainer.global_batch_size'?"),
        ("train", ["domain=materials", "data=text"], "data: text is for domain=language, not for domain=materials"),
        ("train", ["task=next_token"], "task: next_token is for domain=language, not for domain=climate; leave task="),
        ("train", ["domain=fluids", "experiment=hea_multitask"], "is for domain=materials, not for domain=fluids"),
        ("train", ["optim.lr=1e-3,3e-3"], "optim.lr must be one value, got several; a list is written as [a,b], and"),
        ("train", ["~trainer"], "'~trainer': keys are not deleted; trainer=null leaves out what can be left out"),
        ("export", [CLIMATE, "to=lammps"], "to: there is no other program for a model of climate; leave it out"),
        ("train", ["init_from=models/fluids"], "models/fluids is a run of domain=fluids, and domain=climate is to be"),
        ("train", ["domain=language", "init_from=models/climate"], "name a run of language, e.g. init_from=models/lan"),
        ("train", ["domain=language", "init_from=latest"], "there is no run under runs/language/; train one: "),
        ("forecast", ["run=fluds/latest"], "there is no run under runs/fluds/; did you mean 'fluids'?"),
        ("forecast", [], "there is no run under runs/; train one: "),
        ("forecast", [], "or take one that is there: run=models/climate"),
        ("forecast", [FLUIDS, CLIMATE], "run: forecast takes one run, got models/fluids and models/climate; only"),
        ("forecast", [FLUIDS, "data.path=empty/no.nc"], "empty/no.nc: no such file or folder"),
        ("compare", [FLUIDS, CLIMATE], "models/fluids of domain=fluids; compare runs of one domain"),
        ("runs", ["domain=weather"], "runs_dir: there is no run under runs/weather/; did you mean 'climate'?"),
        ("report", [MATERIALS], "models/materials is an exported model, whose folder has no report; score it"),
        ("thermodynamics", [MATERIALS], "elements: which alloy is it?; for example elements=CoCrFeNi"),
        ("checkpoint", ["path=broken"], "broken/model.safetensors is missing or corrupted; copy or export it again"),
        ("forecast", [FLUIDS, "lead_time=soon"], "lead_time: 'soon' is no duration; write seconds, e.g. 200s"),
        ("train", ["-m", "domain=language", "seed=1,2,1"], "seed: 1 is there twice"),
        ("train", ["--config", "one/run.json"], "one/run.json is the record of a run, not a file of keys; resume=one"),
        ("train", ["--config", "mine.yaml", "run=two"], "trainer.max_steps must be at least 1"),
        ("train", ["--config", "mine.yaml", "run=two", "run=three"], "run: train takes one run, got two and three"),
        ("train", ["--config", "list.yaml"], "--config: list.yaml is no mapping of keys"),
        ("train", ["--config-dir", "own"], "--config-dir: own/domain/mine.yaml is no mapping of keys"),
    ],
)  # fmt: skip
def test_one_sentence_and_nothing_written(verb, arguments, says, folder, capsys):
    before = contents(folder)
    with pytest.raises(SystemExit) as ended:
        main(verb, arguments)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2, said
    assert said.startswith("error: ")
    assert says in said
    assert contents(folder) == before
    assert (ROOT / "models" / "climate" / "run.json").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "there is no verb 'trian'; did you mean 'train'"),
        (["domain=climate"], "a verb comes first, e.g. sciml train domain=climate"),
    ],
)
def test_a_verb_comes_first(words, says, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sciml", *words])
    with pytest.raises(SystemExit) as ended:
        sciml_command()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_committed_files_are_found_from_any_folder(folder, capsys):
    main("predict", [MATERIALS, ALLOYS, "out=out.extxyz"])
    assert "predicted  " in capsys.readouterr().out
    assert Path("out.extxyz").is_file()


def test_what_an_exported_model_holds(folder, capsys):
    main("checkpoint", ["run=models/language", "output=json"])
    held = json.loads(capsys.readouterr().out)
    assert held["parameters"] == sum(math.prod(tensor["shape"]) for tensor in held["tensors"])
    main("checkpoint", ["run=models/language", "action=verify"])
    assert "1 file, " in capsys.readouterr().out


def test_several_runs_are_compared_as_they_are_named(folder, capsys):
    main("runs", ["action=compare", CLIMATE, FLUIDS])
    assert "state" in capsys.readouterr().out


@pytest.fixture(scope="module")
def models():
    return {name: sciml.load(f"models/{name}") for name in ("climate", "materials", "language")}


class TestInPython:
    @pytest.mark.parametrize("run", [3, None, "", "empty", "file.txt", LONG])
    def test_what_is_no_run(self, run, folder):
        with pytest.raises(ConfigError, match="there is no run"):
            sciml.load(run)

    @pytest.mark.parametrize(
        ("start", "keys", "says"),
        [
            ("not a date", {}, "init_time: 'not a date' is no date"),
            ("nowhere.nc", {}, "nowhere.nc: no such file or folder"),
            (Path("nowhere"), {}, "nowhere: no such file or folder"),
            ([1, 2], {}, "start must be a dataset, a file or a time, got list"),
            (None, {"lead_time": 0}, "lead_time must be above 0, got 0"),
            (None, {"lead_time": "soon"}, "lead_time: 'soon' is no duration"),
            (None, {"members": 0}, "members must be at least 1, got 0"),
            (None, {"members": 1.5}, "members must be a whole number, got 1.5"),
            (None, {"members": "two"}, "members must be a whole number, got 'two'"),
            (None, {"perturbation": -1}, "perturbation must be at least 0, got -1"),
            (None, {"seed": -1}, "seed must be at least 0, got -1"),
            (None, {"memebrs": 3}, "memebrs: unknown key; did you mean 'members'"),
            (None, {"trainer.max_steps": 3}, "trainer.max_steps: cannot be changed of a trained model"),
        ],
    )  # fmt: skip
    def test_forecasts(self, models, start, keys, says, folder):
        with pytest.raises(SciMLError) as refused:
            models["climate"].forecast(start, **keys)
        assert says in str(refused.value)

    def test_a_dataset_is_not_called_by_a_file_that_the_user_never_saw(self, models):
        import xarray as xr

        with pytest.raises(DataError, match=r"^the dataset: no variable that is known here"):
            models["climate"].forecast(xr.Dataset())

    def test_a_bare_number_is_seconds_of_a_flow(self):
        flow = sciml.load("models/fluids").forecast(ROOT / "data" / "fluids" / "flow.nc", 40)
        assert list(flow["time"].values) == [0, 20, 40]

    def test_verbs_of_other_domains(self, models):
        with pytest.raises(AttributeError, match="a model of climate has no predict; it has forecast, score"):
            models["climate"].predict([])
        assert not hasattr(models["materials"], "forecast")

    @pytest.mark.parametrize("structures", ["file.xyz", Path("file.xyz"), None, 3, [3]])
    def test_what_is_no_structure(self, models, structures):
        with pytest.raises(ConfigError, match="structures must be Atoms of ASE, got"):
            models["materials"].predict(structures)

    def test_relaxations(self, models):
        from ase.build import bulk

        with pytest.raises(ConfigError, match="fmax must be above 0, got -1"):
            models["materials"].relax(bulk("Cu"), fmax=-1)
        with pytest.raises(ConfigError, match="max_steps must be at least 1, got 0"):
            models["materials"].relax(bulk("Cu"), max_steps=0)

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ((3,), "beginning must be text, got int"),
            (("a", 0), "count must be at least 1, got 0"),
            (("a", "b"), "count must be a whole number, got 'b'"),
        ],
    )
    def test_writing(self, models, given, says):
        with pytest.raises(ConfigError) as refused:
            models["language"].write(*given)
        assert says in str(refused.value)

    @pytest.mark.parametrize("keys", [{"domain": "nope"}, {"domain": None}, {"devices": 0}, {"clustr": "h100"}])
    def test_plans(self, keys):
        with pytest.raises(ConfigError):
            sciml.plan(**keys)
