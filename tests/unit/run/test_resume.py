"""A run that resumes does what was asked, or refuses it by name."""

import errno
import json
import math
import os
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
import torch

from sciml.app.cli import main
from sciml.core.errors import ConfigError, UnwritableError
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.lock import NAME, Holder
from sciml.run.resume import resumed_config
from sciml.run.session import TrainingSession
from sciml.testing.sessions import start_session
from sciml.training import checkpoint
from sciml.training.callbacks import Callback
from sciml.training.checkpoint import CheckpointStore

CONF = str(Path(__file__).resolve().parents[2] / "conformance" / "toy" / "conf")
TOY = (
    "domain=toy", "data.num_samples=20", "trainer.max_steps=6", "trainer.save_every=3", "trainer.valid_every=3",
    "trainer.global_batch_size=4", "trainer.num_threads=1", "trainer.log_every=1", "optim.warmup_steps=2", "seed=7",
)  # fmt: skip


def composed(*arguments):
    return compose("train", ["domain=toy", *arguments], CONF)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    session = start_session(compose("train", [*TOY, f"runs_dir={tmp_path_factory.mktemp('runs')}"], CONF))
    session.fit()
    return session


@pytest.fixture
def run(trained, tmp_path):
    """Returns the folder of a finished run, which a test may change."""
    path = tmp_path / "runs" / "toy" / "one"
    shutil.copytree(trained.folder.path, path)
    return RunFolder(path)


def resume(run, *arguments) -> TrainingSession:
    return start_session(composed(f"resume={run.path}", f"runs_dir={run.path.parents[1]}", *arguments))


def rows(run, split):
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


def test_groups_that_a_run_may_change_are_taken_as_a_whole(trained):
    config = resumed_config(
        trained.folder, composed("optim=muon", "engine=deepspeed", "parallel=auto", "tracking=tensorboard", "seeds=2")
    )
    assert config["optim"]["name"] == "muon"
    assert config["engine"]["name"] == "deepspeed"
    assert config["parallel"]["auto"] is True
    assert config["tracking"]["kind"] == "tensorboard"
    assert config["seeds"] == 2
    assert config["trainer"] == trained.spec.config["trainer"]
    assert resumed_config(trained.folder, composed("trainer=default"))["trainer"]["max_steps"] == 800


def test_what_a_run_is_may_be_named_again(trained):
    again = resumed_config(trained.folder, composed("model=vit_ring", "data.num_samples=20", "task=drift", "seed=7"))
    assert {key: again[key] for key in ("data", "model", "task", "seed")} == {
        key: trained.spec.config[key] for key in ("data", "model", "task", "seed")
    }


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["model=vit_tiny"], "model."),
        (["data=text"], "data.path"),
        (["task=next_token"], "task"),
        (["seed=8"], "seed"),
        (["domain=climate"], "domain._target_"),
        (["experiment=climate_archive"], "d"),
        (["model.depth=3"], "model.depth"),
        (["data.num_samples=21"], "data.num_samples"),
    ],
)
def test_what_a_run_is_cannot_be_changed(arguments, key, trained):
    composition = compose("train", arguments if "=climate" in arguments[0] else ["domain=toy", *arguments], CONF)
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}.*: .* was begun with .*cannot resume with"):
        resumed_config(trained.folder, composition)


def test_single_keys_may_be_named_again_and_practical_ones_changed(trained):
    again = resumed_config(trained.folder, composed("data.num_samples=20", "model.recompute=full"))
    assert again["data"] == trained.spec.config["data"]
    assert again["model"] == {**trained.spec.config["model"], "recompute": "full"}


def test_a_refused_resume_leaves_the_run_unlocked(run):
    with pytest.raises(ConfigError, match="tp"):
        resume(run, "parallel.tp=2")
    assert not (run.path / NAME).exists()


def test_a_restarted_job_is_not_taken_for_another_command(trained):
    composition = composed("trainer=default", "trainer.max_steps=9")
    assert resumed_config(trained.folder, composition, restarted=True)["trainer"] == {
        **trained.spec.config["trainer"], "max_steps": 9
    }  # fmt: skip


def test_the_position_is_counted_in_samples(trained, run):
    resumed = resume(run, "trainer.global_batch_size=8", "trainer.max_steps=8")
    stream, drawn = resumed.trainer.stream, []
    for step in range(6):
        drawn += trained.trainer.stream.draws(step)
    for step in range(6, 8):
        drawn += stream.draws(step)
    straight = [draw for step in range(10) for draw in trained.trainer.stream.draws(step)]
    assert drawn == straight
    resumed.fit()
    assert [row["epoch"] for row in rows(run, "train")[-2:]] == [32 / 20, 40 / 20]
    again = resume(run, "trainer.global_batch_size=4", "trainer.max_steps=9")
    assert again.trainer.stream.samples(again.trainer.step) == 40


def test_a_longer_training_does_not_raise_the_rate_again(run, capsys):
    resumed = resume(run, "trainer.max_steps=12")
    said = capsys.readouterr().err
    assert "the learning rate stays at its floor of 2e-05, since its decay ended with step 6" in said
    assert "optim.decay_steps=10 would decay it until step 12" in said
    resumed.fit()
    rates = [row["lr"] for row in rows(run, "train")]
    assert max(rates[6:]) == pytest.approx(2e-5)
    kept = RunFolder(run.path).record
    assert kept["config"]["trainer"]["max_steps"] == 12
    assert kept["resumes"][0]["changed"]["trainer.max_steps"] == [6, 12]
    again = resume(run, "trainer.max_steps=18", "optim.decay_steps=16")
    assert again.spec.optim.decay_steps == 16
    assert "falls to 2e-05 at step 18" in capsys.readouterr().err


def test_a_decay_can_be_run_from_any_checkpoint(run):
    resume(run, "optim.schedule=wsd", "optim.decay_steps=4", "trainer.max_steps=10").fit()
    rates = [row["lr"] for row in rows(run, "train")[-4:]]
    assert rates[0] == pytest.approx(2e-3)
    assert sorted(rates, reverse=True) == rates
    assert len(set(rates)) == 4


def test_another_optimizer_begins_its_moments(run, capsys):
    resumed = resume(run, "optim=sgd", "trainer.max_steps=8")
    assert "the optimizer's moments begin anew: sgd takes over from adamw" in capsys.readouterr().err
    moments = {name: v for name, v in resumed.trainer.saved.tensors().items() if name.startswith("optim.")}
    assert moments
    assert all(not value.any() for value in moments.values())
    resumed.fit()
    back = resume(run, "trainer.max_steps=8")
    assert back.spec.optim.name == "sgd"
    assert any(value.any() for name, value in back.trainer.saved.tensors().items() if name.startswith("optim."))


def test_another_precision_begins_its_loss_scale_and_an_average_begins_from_the_weights(run, capsys):
    plain = resume(run, "optim.ema_decay=null", "trainer.max_steps=7")
    plain.fit()
    capsys.readouterr()
    resumed = resume(run, "trainer.precision=fp16", "optim.ema_decay=0.9", "trainer.max_steps=8")
    said = capsys.readouterr().err
    assert "the loss scale of fp16 begins anew" in said
    assert "the average of the weights begins from the weights" in said
    assert resumed.trainer.average is not None
    for name, weight in resumed.trainer.engine.weights().items():
        assert torch.equal(weight, resumed.trainer.average.averages[name])
    resumed.fit()
    last = rows(run, "train")[-1]
    assert last["loss_scale"] == 2.0 ** (16 - last["skipped"])
    assert "loss_scale" not in rows(run, "train")[0]


def test_a_validation_that_is_no_number_is_never_the_best(run):
    trainer = resume(run).trainer
    (run.path / "checkpoints" / "best.json").unlink()
    trainer._keep_if_best({"loss": math.nan}, saved=True)
    assert trainer.checkpoints.best_loss() is None
    trainer._keep_if_best({"loss": 3.0}, saved=True)
    trainer._keep_if_best({"loss": math.inf}, saved=True)
    assert trainer.checkpoints.best_loss() == 3.0


class Killed(Callback):
    """Ends a training as a kill does, before anything else of a step is done."""

    def __init__(self, step):
        self.step = step

    def on_step(self, step, record):
        if step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("lost", [False, True])
def test_a_restart_goes_on_from_what_its_node_has_kept(trained, tmp_path, capsys, lost):
    """It is the training that nothing happened to, whether the node has kept its checkpoint or not."""
    disk = tmp_path / "disk"
    near = (f"trainer.node_folder={disk}", "trainer.node_save_every=1", f"runs_dir={tmp_path / 'runs'}")
    begun = start_session(compose("train", [*TOY, *near], CONF))
    with pytest.raises(KeyboardInterrupt):
        begun.trainer.fit([Killed(6)])
    begun.lock.release()
    (kept,) = disk.glob("*/from-rank-00000")
    assert sorted(path.name for path in kept.iterdir()) == ["step-00000004", "step-00000005"]
    for path in [kept / "step-00000005", kept / "step-00000004"] if lost else []:
        next(path.glob("*.safetensors")).write_bytes(b"nothing")
    capsys.readouterr()
    resumed = resume(begun.folder)
    assert resumed.trainer.step == (3 if lost else 5)
    assert ("goes on from step 5, which every node has on its own disk" in capsys.readouterr().err) is not lost
    resumed.fit()
    for name, tensor in trained.trainer.saved.tensors().items():
        assert torch.equal(tensor, resumed.trainer.saved.tensors()[name]), name
    assert not list(disk.iterdir())
    another = start_session(compose("train", [*TOY, *near], CONF))
    assert another.trainer.step == 0
    another.lock.release()


def test_a_full_disk_of_a_node_ends_no_training(tmp_path, capsys, monkeypatch):
    write = checkpoint.write_tensors

    def fills_up(folder, *arguments, **options):
        if "from-rank" in str(folder):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, *arguments, **options)

    monkeypatch.setattr(checkpoint, "write_tensors", fills_up)
    near = (f"trainer.node_folder={tmp_path / 'disk'}", "trainer.node_save_every=1", f"runs_dir={tmp_path / 'runs'}")
    session = start_session(compose("train", [*TOY, *near], CONF))
    assert session.fit()
    said = capsys.readouterr().err
    assert "warning: trainer.node_folder: could not write" in said
    assert "the disk is full" in said
    assert "training goes on without" in said
    assert CheckpointStore(session.folder.checkpoints).steps() == [3, 6]


def test_a_folder_on_the_nodes_that_cannot_be_written_is_refused_before_training(tmp_path):
    with pytest.raises(UnwritableError, match="/proc/nothing"):
        start_session(compose("train", [*TOY, "trainer.node_folder=/proc/nothing", f"runs_dir={tmp_path}"], CONF))


def test_a_run_that_trains_elsewhere_is_not_resumed(run):
    log, parent = (run.path / "metrics.jsonl").read_bytes(), psutil.Process(os.getppid())
    holder = replace(Holder.here(), pid=parent.pid, started=parent.create_time())
    (run.path / NAME).write_text(json.dumps(asdict(holder)))
    with pytest.raises(ConfigError, match=rf"resume: .* is being trained by process {parent.pid} on"):
        resume(run, "trainer.max_steps=8")
    assert (run.path / "metrics.jsonl").read_bytes() == log
    (run.path / NAME).unlink()
    resume(run, "trainer.max_steps=8").fit()
    assert not (run.path / NAME).exists()


def test_a_broken_best_checkpoint_gives_its_place_to_those_that_are_trained_after_it(run, capsys):
    store = CheckpointStore(run.checkpoints)
    (run.checkpoints / "best.json").write_text('{"step": 6, "loss": 1e-9}')
    next(store.path(6).glob("*.safetensors")).write_bytes(b"half")
    session = resume(run, "trainer.max_steps=5")
    assert session.trainer.step == 3
    assert f"going on with {store.path(3)}, the newest that is intact" in capsys.readouterr().err
    session.fit()
    assert store.best() == store.path(5)
    assert store.best_loss() == pytest.approx(rows(run, "valid")[-1]["loss"])


def test_an_intact_best_checkpoint_keeps_its_place(run):
    (run.checkpoints / "best.json").write_text('{"step": 3, "loss": 1e-9}')
    resume(run, "trainer.max_steps=9").fit()
    assert CheckpointStore(run.checkpoints).best() == CheckpointStore(run.checkpoints).path(3)


def test_losses_of_other_validation_samples_do_not_decide_which_checkpoint_is_the_best(run, capsys):
    store = CheckpointStore(run.checkpoints)
    (run.checkpoints / "best.json").write_text('{"step": 3, "loss": 1e-9}')
    resume(run, "trainer.max_steps=9", "trainer.valid_samples=2").fit()
    assert "trainer.valid_samples has changed, so the best checkpoint is chosen anew" in capsys.readouterr().err
    assert store.best() == store.path(9)


def rates(run, name):
    lines = (run.path / "reference_models" / name / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["lr"] for row in map(json.loads, lines) if row["split"] == "train"}


def test_a_reference_model_of_a_resumed_run_keeps_the_schedule_of_its_own_length(tmp_path):
    """A cosine from 2e-3 to a hundredth of it: twelve steps after a warm-up of two, whatever the run's own six are."""
    toy = ["--config-dir", CONF, *TOY, f"runs_dir={tmp_path}", "optim.lr=2e-3", "optim.min_lr_ratio=0.01"]
    main("train", [*toy, "reference_models.window={model: {kind: window}, trainer: {max_steps: 14}}"])
    run = RunFolder.find("latest", str(tmp_path))
    cosine = {s: 2e-3 * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (s - 3) / 12))) for s in range(3, 15)}
    expected = pytest.approx({1: 1e-3, 2: 2e-3, **cosine})
    assert rates(run, "window-0") == expected
    shutil.rmtree(run.path / "reference_models")  # as if the job had ended before its turn came
    main("train", [*toy[:2], f"resume={run.path}"])
    assert rates(run, "window-0") == expected
    main(
        "train", [*toy[:2], f"resume={run.path}", "trainer.max_steps=8", "reference_models.window.trainer.max_steps=16"]
    )
    assert rates(run, "window-0") == pytest.approx({1: 1e-3, 2: 2e-3, **cosine, 15: 2e-5, 16: 2e-5})
