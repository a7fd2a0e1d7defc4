"""What every domain inherits to prove that it plays by the rules.

Subclass :class:`DomainConformance` in a test file, say how to compose a small configuration, and pytest runs the
rest. All runs are on one thread and finish in seconds if the configuration is small.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from sciml.app.cli import main
from sciml.core.errors import ConfigError
from sciml.distributed.world import World
from sciml.domain.protocol import Prediction
from sciml.forecast.rollout import rollout
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run
from sciml.run.scoring import score_run
from sciml.run.session import TrainingSession
from sciml.testing.ranks import ranks
from sciml.testing.sessions import start_session

SMALL = ("trainer.max_steps=6", "trainer.save_every=3", "trainer.valid_every=3", "trainer.global_batch_size=4",
         "trainer.num_threads=1", "trainer.log_every=1", "optim.warmup_steps=2", "seed=7")  # fmt: skip


class DomainConformance:
    """The suite.

    Attributes:
        overrides: what makes the configuration of the domain, small.
        config_dir: folder of the domain's own groups, where they are not in ``conf``.
        meshes: ways of cutting the model over two processes that must train it as one process does.
        falling: overrides under which the loss falls by a tenth or more.
    """

    overrides: ClassVar[tuple[str, ...]] = ()
    config_dir: ClassVar[str | None] = None
    meshes: ClassVar[tuple[str, ...]] = ("parallel.dp=2",)
    falling: ClassVar[tuple[str, ...]] = ("trainer.max_steps=40",)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _one_thread(cls) -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, tmp_path_factory: pytest.TempPathFactory) -> TrainingSession:
        """A finished training, for tests that only look at it."""
        training = cls.training(tmp_path_factory.mktemp("trained"))
        training.trainer.fit()
        return training

    @classmethod
    def training(cls, folder: Path, *overrides: str) -> TrainingSession:
        """A training in a folder of its own, composed as on the command line."""
        return start_session(compose("train", [*cls._arguments(folder), *overrides], cls.config_dir))

    @classmethod
    def _arguments(cls, folder: Path) -> list[str]:
        return [*SMALL, f"runs_dir={folder}", *cls.overrides]

    def test_loss_falls(self, tmp_path: Path) -> None:
        training = self.training(tmp_path, "trainer.save_every=1000", "trainer.valid_every=1000", *self.falling)
        before = training.trainer.validate()["loss"]
        training.trainer.fit()
        after = training.trainer.validate()["loss"]
        assert after < 0.9 * before

    def test_rollout_is_repeated_advance(self, trained: TrainingSession) -> None:
        task, model = trained.trainer.task, trained.trainer.engine.model.module.eval()
        splits = trained.trainer.splits
        step: Any = splits.test.collate([splits.test.sample(i, np.random.default_rng(0)) for i in range(2)])
        steps = list(rollout(task, model, step))
        for batch, prediction in steps:
            assert step is not None
            with torch.no_grad():
                by_hand = task.predict(model, step)
            _assert_equal(prediction, by_hand)
            assert batch.num_samples == step.num_samples
            step = task.advance(step, by_hand)
        assert step is None

    def test_a_saved_model_predicts_the_same(self, trained: TrainingSession) -> None:
        loaded = load_run(trained.folder, checkpoint="latest")
        source = trained.trainer.splits.test
        batch = source.collate([source.sample(0, np.random.default_rng(0))])
        with trained.trainer.evaluation_weights() as model:
            kept = trained.trainer.task.predict(model, batch)
        with torch.no_grad():
            _assert_equal(loaded.task.predict(loaded.model, batch), kept)

    def test_a_resumed_run_equals_the_straight_one_bit_for_bit(self, trained: TrainingSession, tmp_path: Path) -> None:
        interrupted = self.training(tmp_path)
        _fit_until(interrupted, 3)
        resumed = self.training(tmp_path, f"resume={interrupted.folder.path}")
        assert resumed.trainer.step == 3
        resumed.trainer.fit()
        state = resumed.trainer._state()
        for name, value in trained.trainer._state().items():
            assert torch.equal(value, state[name]), name

    def test_two_processes_equal_one(self, trained: TrainingSession, tmp_path: Path) -> None:
        for number, mesh in enumerate(self.meshes):
            self.equals_on(mesh, trained, tmp_path / str(number), scored=number == 0)

    def test_every_command_exits_zero_and_every_figure_draws(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._main("train", [*self._command(tmp_path), "output=json"])
        trained = json.loads(capsys.readouterr().out)
        folder = RunFolder.find("latest", str(tmp_path))
        assert Path(trained["report"]).exists()
        rows = folder.scores()
        assert rows
        assert all({"variable", "metric", "value", "unit", "lead_time_h", "baseline"} <= set(row) for row in rows)
        assert all(row["baseline"] for row in rows)
        figures = sorted((folder.path / "figures").iterdir())
        assert figures
        assert all(figure.stat().st_size > 1000 for figure in figures)
        Path(trained["report"]).unlink()
        self._main("report", [f"runs_dir={tmp_path}"])
        assert Path(trained["report"]).exists()
        self._main("evaluate", [f"runs_dir={tmp_path}"])
        assert folder.scores() == rows

    def test_a_model_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        composition = compose("train", self._arguments(tmp_path), self.config_dir)
        composition.config["model"]["kind"] = "abacus"
        with pytest.raises(ConfigError, match="abacus"):
            start_session(composition)
        assert not list(tmp_path.glob("*/*"))

    def equals_on(
        self, mesh: str, single: TrainingSession, folder: Path, *overrides: str, scored: bool = False
    ) -> None:
        """Asserts that two processes train to the weights of one, and score what they have trained."""
        arguments = [*self._arguments(folder), *overrides, *mesh.split()]
        double = RunFolder(ranks(2).run(_train, arguments, self.config_dir, scored)[0])
        expected = {name: value for name, value in single.trainer._state().items() if name.startswith("model.")}
        loaded = load_run(double, checkpoint="latest")
        averages = single.trainer.average.averages if single.trainer.average else {}
        for name, value in loaded.model.named_parameters():
            torch.testing.assert_close(
                value.detach(), averages.get(name, expected[f"model.{name}"]), rtol=1e-4, atol=1e-6
            )

    def _command(self, folder: Path) -> list[str]:
        found = ["--config-dir", self.config_dir] if self.config_dir else []
        return [*found, *self._arguments(folder)]

    def _main(self, verb: str, arguments: list[str]) -> None:
        main(verb, arguments)


def _train(world: World, arguments: list[str], config_dir: str | None, scored: bool) -> Path:
    """Trains on the ranks of a group, and scores where that is wanted; returns the run's folder."""
    training = start_session(compose("train", arguments, config_dir), world)
    training.fit()
    if scored:
        score_run(training.folder, training.trainer.mesh, training.spec.parallel)
        world.barrier()
    return training.folder.path


def _fit_until(training: TrainingSession, step: int) -> None:
    """Trains up to a step and leaves as after a kill: with nothing but the checkpoints."""

    class StopError(Exception):
        pass

    class StopAt:
        def on_step(self, now: int, record: Any) -> None:
            if now > step:
                raise StopError

        def on_validation(self, now: int, record: Any) -> None: ...

        def close(self) -> None: ...

    with pytest.raises(StopError):
        training.trainer.fit([StopAt()])


def _assert_equal(one: Prediction, other: Prediction) -> None:
    for name, value in one.values.items():
        assert torch.equal(value, other.values[name]), name
