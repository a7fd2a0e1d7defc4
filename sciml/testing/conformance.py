"""What every domain inherits to prove that it plays by the rules.

Subclass :class:`DomainConformance` in a test file, say how to compose a small configuration, and pytest runs the
rest. All runs are on one thread and finish in seconds if the configuration is small.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from sciml.app.cli import main
from sciml.core.errors import ConfigError
from sciml.distributed import launcher
from sciml.domain.protocol import Prediction
from sciml.forecast.rollout import rollout
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run
from sciml.run.session import TrainingSession
from sciml.testing.sessions import start_session

TIMEOUT_S = 240
ROOT = Path(__file__).resolve().parents[2]
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

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)

    def training(self, folder: Path, *overrides: str) -> TrainingSession:
        """A training in a folder of its own, composed as on the command line."""
        return start_session(compose("train", [*self._arguments(folder), *overrides], self.config_dir))

    def _arguments(self, folder: Path) -> list[str]:
        return [*SMALL, f"runs_dir={folder}", *self.overrides]

    def test_loss_falls(self, tmp_path: Path) -> None:
        training = self.training(tmp_path, *self.falling)
        before = training.trainer.validate()["loss"]
        training.trainer.fit()
        after = training.trainer.validate()["loss"]
        assert after < 0.9 * before

    def test_rollout_is_repeated_advance(self, tmp_path: Path) -> None:
        training = self.training(tmp_path, "trainer.max_steps=2")
        training.trainer.fit()
        task, model = training.trainer.task, training.trainer.engine.model.module.eval()
        splits = training.trainer.splits
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

    def test_a_saved_model_predicts_the_same(self, tmp_path: Path) -> None:
        training = self.training(tmp_path)
        training.trainer.fit()
        loaded = load_run(training.folder, checkpoint="latest")
        source = training.trainer.splits.test
        batch = source.collate([source.sample(0, np.random.default_rng(0))])
        with training.trainer.evaluation_weights() as model:
            kept = training.trainer.task.predict(model, batch)
        with torch.no_grad():
            _assert_equal(loaded.task.predict(loaded.model, batch), kept)

    def test_a_resumed_run_equals_the_straight_one_bit_for_bit(self, tmp_path: Path) -> None:
        straight = self.training(tmp_path / "straight")
        straight.trainer.fit()
        interrupted = self.training(tmp_path / "interrupted")
        _fit_until(interrupted, 3)
        resumed = self.training(tmp_path / "interrupted", f"resume={interrupted.folder.path}")
        assert resumed.trainer.step == 3
        resumed.trainer.fit()
        for name, value in straight.trainer._state().items():
            assert torch.equal(value, resumed.trainer._state()[name]), name

    def test_two_processes_equal_one(self, tmp_path: Path) -> None:
        single = self.training(tmp_path / "one")
        single.trainer.fit()
        for number, mesh in enumerate(self.meshes):
            self._equals_on(mesh, single, tmp_path / str(number))

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

    def _equals_on(self, mesh: str, single: TrainingSession, folder: Path) -> None:
        folder.mkdir()
        self._launch(
            f"from sciml.app.cli import main; main('train', {[*self._command(folder), *mesh.split()]!r})", folder
        )
        double = RunFolder.find("latest", str(folder))
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

    def _launch(self, program: str, folder: Path) -> None:
        script = folder / "program.py"
        script.write_text(program)
        command = [*launcher.program(2), str(script)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, cwd=ROOT, timeout=TIMEOUT_S, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]


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
