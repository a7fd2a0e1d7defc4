"""Runs are listed, compared and deleted from their files alone, whatever state they are in."""

import io
import json
import sys
from pathlib import Path

import pytest

from sciml.app.cli import main
from sciml.core.errors import ConfigError
from sciml.domain.score import Metric
from sciml.report.runs import RunSummary, differences, runs_under
from sciml.report.sweep import best_of, labels_of, sweep_text
from sciml.run.combinations import combinations
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.lock import RunLock
from sciml.run.spec import RunSpec


def made(runs_dir, name, *arguments, value=None):
    """A run's folder as it is after training, without a model."""
    config = RunSpec.build(compose("train", ["domain=language", *arguments]).config).config
    folder = RunFolder.create(runs_dir / "language" / name, "language", config, {"train": 1})
    if value is not None:
        row = {"variable": "byte", "metric": "bits_per_byte", "better": "lower", "perfect": 0.0, "unit": "bit"}
        scores = [{**row, "lead_time_h": None, "value": value, "baseline": {"unigram": 4.0, "bigram": 3.0}}]
        (folder.path / "scores.json").write_text(json.dumps(scores))
        (folder.path / "checkpoints" / "step-00001000").mkdir(parents=True)
        (folder.path / "checkpoints" / "step-00001000" / "checkpoint.json").write_text("{}")
    return folder


def test_a_list_says_how_far_and_how_good_each_is(tmp_path, capsys):
    made(tmp_path, "good", value=2.4)
    made(tmp_path, "begun")
    (made(tmp_path, "broken").path / "run.json").write_text("{")
    main("runs", [f"runs_dir={tmp_path}", "output=json"])
    runs = {run["path"].rsplit("/", 1)[1]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    assert runs["good"]["against_best"] == pytest.approx(0.8)
    assert runs["good"]["values"] == {"byte": 2.4}
    assert [runs[name]["state"] for name in ("good", "begun")] == ["scored", "begun"]
    assert runs["broken"]["state"].startswith("damaged: ")
    main("runs", [f"runs_dir={tmp_path}"])
    assert "0.80" in capsys.readouterr().out


def test_a_comparison_shows_the_keys_that_differ_and_the_scores(tmp_path, capsys):
    made(tmp_path, "one", value=2.4)
    made(tmp_path, "two", "optim.lr=0.5", value=3.0)
    main("runs", [f"runs_dir={tmp_path}", "action=compare", "run=[one,two]"])
    text = capsys.readouterr().out
    assert [line.split() for line in text.splitlines() if line.startswith("optim.lr")] == [["optim.lr", "0.01", "0.5"]]
    assert "model.depth" not in text
    runs = [RunSummary.of(RunFolder.find(name, str(tmp_path))) for name in ("one", "two")]
    assert set(differences(runs)) == {"optim.lr"}


def test_a_run_is_deleted_after_a_question_and_never_while_it_is_trained(tmp_path, monkeypatch, capsys):
    folder = made(tmp_path, "old", value=1.0)
    arguments = [f"runs_dir={tmp_path}", "action=delete", "run=old"]

    def refused(*more):
        with pytest.raises(SystemExit) as ended:
            main("runs", [*arguments, *more])
        return ended.value.code, capsys.readouterr().err

    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert refused() == (2, "error: force: nobody can be asked here; add --force to delete without a question\n")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    lock = RunLock(folder.path)
    assert runs_under(str(tmp_path))[0].state == "training"
    code, said = refused("--force")
    assert code == 2
    assert "is being trained by process" in said
    lock.release()
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    main("runs", arguments)
    assert folder.exists
    main("runs", [*arguments, "--force"])
    assert not folder.path.exists()


@pytest.mark.usefixtures("no_reports")
def test_a_sweep_trains_every_combination_and_compares_them(tmp_path, capsys):
    small = ["domain=language", "model.depth=1", "model.embed_dim=16", "model.num_heads=2", "model.context=16"]
    small += ["trainer.max_steps=2", "trainer.num_threads=1", "data.splits={train: 20, valid: 0.1, test: 0.1}"]
    main("train", ["-m", *small, f"runs_dir={tmp_path}", "optim.lr=1e-3,1e-2", "run=lr", "output=json"])
    document = json.loads(capsys.readouterr().out)
    assert [run["keys"] for run in document["runs"]] == [{"optim.lr": "1e-3"}, {"optim.lr": "1e-2"}]
    assert document["best"] in [run["run"] for run in document["runs"]]
    assert [run.path.name for run in runs_under(str(tmp_path), "language")] == ["lr-02", "lr-01"]
    table = (tmp_path / "sweeps" / "001" / "sweep.txt").read_text()
    assert [line.split()[:2] for line in table.splitlines() if line.startswith("lr-")] == [
        ["lr-01", "1e-3"],
        ["lr-02", "1e-2"],
    ]
    assert (tmp_path / "sweeps" / "001" / "sweep.png").stat().st_size > 1000
    assert not document["failed"]
    main("compare", [f"runs_dir={tmp_path}", "run=lr-01", "run=lr-02", "rounds=1", "output=json"])
    compared = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in compared["scores"]][:2] == ["lr-01", "lr-02"]
    assert Path(compared["comparison"]).parent == tmp_path / "comparisons" / "language" / "lr-01-lr-02"


def scored(name, metric, **values):
    return RunSummary(Path(name), state="scored", metric=metric, values=values)


def test_a_sweep_names_the_best_on_the_mean_over_variables():
    rmse, acc = Metric("rmse"), Metric("acc", better="higher", perfect=1.0)
    keys = [{"optim.lr": "1e-3", "seed": "1"}, {"optim.lr": "1e-2", "seed": "1"}, {"optim.lr": "1e-1", "seed": "1"}]
    runs = [scored("a", rmse, t=1.0, u=10.0), scored("b", rmse, t=1.1, u=8.0), RunSummary(Path("c"), state="trained")]
    assert best_of(runs) == 1
    assert best_of([scored("a", acc, t=0.5), RunSummary(Path("b")), scored("c", acc, t=0.6)]) == 2
    assert best_of(runs[::2]) is None
    lines = sweep_text(runs, keys).splitlines()
    assert lines[0].split() == ["run", "lr", "seed", "state", "to", "best", "baseline", "to", "the", "first", "t", "u"]
    assert lines[3].split() == ["b", "1e-2", "1", "scored", "0.9381", "1.1", "8"]
    assert lines[4].split() == ["c", "1e-1", "1", "trained"]
    assert lines[-1].startswith("RMSE of each variable, lower is better")


def test_labels_of_a_sweep_are_short():
    keys = {"model.depth": "1", "task.depth": "2", "optim.lr": "1e-3", "data.path": "/home/me/" + 40 * "x" + ".nc"}
    assert labels_of([keys]) == ["model.depth=1 task.depth=2 lr=1e-3 path=..." + 22 * "x" + ".nc"]


def test_a_sweep_is_checked_before_it_begins(tmp_path):
    with pytest.raises(ConfigError, match=r"optim\.lr must be above 0"):
        combinations(["domain=language", "optim.lr=1e-3,-1"])
    with pytest.raises(ConfigError, match="no key has several values"):
        combinations(["domain=language", "task.write_bytes=3"])
    found = combinations(["domain=climate", "task.intervals=[24h,48h],[24h]", "seed=1,2"])
    assert [one.label for one in found][:2] == [
        "task.intervals=[24h,48h] seed=1",
        "task.intervals=[24h,48h] seed=2",
    ]
    assert len(found) == 4


def test_runs_on_other_data_are_not_compared(tmp_path, capsys):
    made(tmp_path, "one", value=2.4)
    made(tmp_path, "two", "data.splits.test=0.1", value=3.0)
    with pytest.raises(SystemExit):
        main("compare", [f"runs_dir={tmp_path}", "run=[one,two]"])
    assert "was trained on other data" in capsys.readouterr().err
