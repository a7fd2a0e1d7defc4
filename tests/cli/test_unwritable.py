"""A place that cannot be written ends every verb in one sentence, before the work begins."""

import json
import shutil
from pathlib import Path

import pytest

from domains.climate.data.synthetic import synthetic_source
from sciml.app.cli import main
from sciml.run.folder import RunFolder
from tests.reports import without_reports

CONF = str(Path(__file__).resolve().parents[1] / "conformance" / "toy" / "conf")
TOY = ["--config-dir", CONF, "domain=toy", "trainer.max_steps=2", "trainer.num_threads=1", "trainer.log_every=1"]
NOWHERE = "/proc/nowhere"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    with without_reports():
        main("train", [*TOY, f"runs_dir={runs}", "run=one"])
    return runs / "toy" / "one"


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "one")
    return tmp_path / "one"


def failed(capsys, verb, *arguments, code=2):
    with pytest.raises(SystemExit) as ended:
        main(verb, list(arguments))
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == code, said
    assert said.startswith("error: could not write"), said
    return said


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("train", [*TOY, f"runs_dir={NOWHERE}"]),
        ("plan", ["domain=climate", "devices=1", f"out={NOWHERE}"]),
        ("tune", ["domain=climate", "devices=1", f"study={NOWHERE}"]),
        ("prepare", ["domain=climate", "path={weather}", f"out={NOWHERE}/a.zarr"]),
        ("simulate", ["domain=fluids", "count=1", f"out={NOWHERE}/a.nc"]),
        ("simulate", ["domain=materials", "count=1", f"out={NOWHERE}/a.extxyz"]),
        ("checkpoint", ["path={run}", "action=convert", f"out={NOWHERE}/a.safetensors"]),
    ],
)
def test_a_place_that_is_named(verb, arguments, run, tmp_path, capsys):
    weather = tmp_path / "weather.zarr"
    if verb == "prepare":
        synthetic_source(num_times=4).to_zarr(weather, zarr_format=2)
    failed(capsys, verb, *(argument.format(run=run, weather=weather) for argument in arguments))


@pytest.mark.parametrize("verb", ["train", "plan", "simulate"])
def test_a_file_where_a_folder_is_to_be(verb, tmp_path, capsys):
    (tmp_path / "file").touch()
    place = f"out={tmp_path}/file/a.nc" if verb == "simulate" else f"runs_dir={tmp_path}/file"
    arguments = {"train": TOY, "plan": ["domain=climate", "devices=1"], "simulate": ["domain=fluids", "count=1"]}[verb]
    assert f"{tmp_path}/file is no folder" in failed(capsys, verb, *arguments, place)


@pytest.fixture
def read_only(run, monkeypatch):
    """Lets no file be made anywhere, as on a disk that is mounted to be read."""

    def refuse(*_, **__):
        raise PermissionError(30, "Read-only file system")

    for name in ("mkstemp", "mkdtemp", "TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory"):
        monkeypatch.setattr(f"tempfile.{name}", refuse)
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("verb", ["train", "evaluate", "report", "compare"])
def test_the_folder_of_a_run(verb, run, capsys, monkeypatch):
    def work(*_, **__):
        pytest.fail("the work has begun")

    monkeypatch.setattr("sciml.run.scoring.score_test", work)
    monkeypatch.setattr("sciml.training.trainer.Trainer._launch", work)
    arguments = [f"resume={run}", "trainer.max_steps=4"] if verb == "train" else [f"run={run}"]
    failed(capsys, verb, "--config-dir", CONF, *arguments)


def test_a_disk_that_is_full_in_the_middle_of_a_training_keeps_the_log(run, capsys, monkeypatch):
    before = (run / "metrics.jsonl").read_text()

    def full(self, text, *_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", full)
        said = failed(capsys, "train", "--config-dir", CONF, f"resume={run}", "trainer.max_steps=4", code=1)
    assert "the disk is full; what was there before is kept" in said
    assert (run / "metrics.jsonl").read_text() == before
    assert not [path for path in run.rglob("*") if "partial" in path.name]
    with without_reports():
        main("train", ["--config-dir", CONF, f"resume={run}", "trainer.max_steps=4"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 2, 3, 4]


def test_an_interrupted_report_leaves_earlier_pictures_whole(run, monkeypatch):
    main("report", ["--config-dir", CONF, f"run={run}"])
    pictures = {path: path.read_bytes() for path in (run / "figures").iterdir()}
    assert pictures

    def interrupted(figure, path, **_):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", interrupted)
    with pytest.raises(SystemExit):
        main("report", ["--config-dir", CONF, f"run={run}"])
    assert {path: path.read_bytes() for path in (run / "figures").iterdir()} == pictures
    assert RunFolder(run).history()
