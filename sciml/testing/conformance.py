"""Tests every domain that inherits from it: that it keeps the protocol and that every command works with it.

Subclass :class:`DomainConformance` in a test file, say how to compose a small configuration, and pytest runs the
rest. All runs are on one thread and finish in seconds if the configuration is small.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import sciml
from sciml.app.cli import main
from sciml.app.plan import facts_of
from sciml.core.errors import ConfigError
from sciml.core.installation import CONF
from sciml.domain.forecasting import Forecasts
from sciml.domain.loading import load_domain
from sciml.domain.optional import Imports, Predicts, Prepares, SamplesThermodynamics, Screens, Simulates
from sciml.forecast.rollout import rollout
from sciml.planning.cluster_here import read_cluster
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_model, load_run
from sciml.run.session import TrainingSession
from sciml.testing.host_reads import host_reads
from sciml.testing.ranks import ranks
from sciml.testing.sessions import assert_equal, fit_until, logged_flops, start_session, train_on_ranks

SMALL = ("trainer.max_steps=6", "trainer.save_every=3", "trainer.valid_every=3", "trainer.global_batch_size=4",
         "trainer.num_threads=1", "trainer.log_every=1", "optim.warmup_steps=2", "seed=7")  # fmt: skip
_NO_SAVES = ("trainer.save_every=100", "trainer.valid_every=100")
USING_A_RUN = {"forecast": Forecasts, "predict": Predicts, "screen": Screens, "thermodynamics": SamplesThermodynamics}
WRITING = {"import": Imports, "prepare": Prepares, "simulate": Simulates}
"""Verbs that only some domains have, and the protocols of those."""


class DomainConformance:
    """Tests that a domain keeps the protocol and that every command works with it.

    Attributes:
        overrides: what makes the configuration of the domain, small.
        config_dir: folder of the domain's own groups, where they are not in ``conf``.
        meshes: ways of sharding the model over two processes that must train it as one process does; the first is
            tried always, the others in slow tests.
        falling: overrides under which the loss falls by a tenth or more.
        waiting: functions in which each step of the model waits for the device, since shapes depend on values there.
    """

    overrides: ClassVar[tuple[str, ...]] = ()
    config_dir: ClassVar[str | None] = None
    meshes: ClassVar[tuple[str, ...]] = ("parallel.dp=2",)
    falling: ClassVar[tuple[str, ...]] = ("trainer.max_steps=40",)
    waiting: ClassVar[tuple[str, ...]] = ()

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
        """Returns a finished training, for tests that only read it."""
        training = cls.training(tmp_path_factory.mktemp("trained"))
        training.fit()
        return training

    @classmethod
    def training(cls, folder: Path, *overrides: str) -> TrainingSession:
        """Returns a training in a folder of its own, composed as on the command line."""
        return start_session(compose("train", [*cls._arguments(folder), *overrides], cls.config_dir))

    @classmethod
    def _arguments(cls, folder: Path) -> list[str]:
        return [*SMALL, f"runs_dir={folder}", *cls.overrides]

    def test_loss_falls(self, tmp_path: Path) -> None:
        training = self.training(tmp_path, "trainer.save_every=1000", "trainer.valid_every=1000", *self.falling)
        before = training.trainer.validation.run()["loss"]
        training.trainer.fit()
        after = training.trainer.validation.run()["loss"]
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
            assert_equal(prediction, by_hand)
            assert batch.num_samples == step.num_samples
            step = task.advance(step, by_hand)
        assert step is None

    def test_a_saved_model_predicts_the_same(self, trained: TrainingSession) -> None:
        loaded = load_run(trained.folder, checkpoint="latest")
        source = trained.trainer.splits.test
        batch = source.collate([source.sample(0, np.random.default_rng(0))])
        with trained.trainer.validation.weights() as model:
            kept = trained.trainer.task.predict(model, batch)
        with torch.no_grad():
            assert_equal(loaded.task.predict(loaded.model, batch), kept)

    def test_a_resumed_run_equals_the_straight_one_bit_for_bit(self, trained: TrainingSession, tmp_path: Path) -> None:
        interrupted = self.training(tmp_path)
        fit_until(interrupted, 3)
        resumed = self.training(tmp_path, f"resume={interrupted.folder.path}")
        assert resumed.trainer.step == 3
        resumed.trainer.fit()
        state = resumed.trainer.saved.tensors()
        for name, value in trained.trainer.saved.tensors().items():
            assert torch.equal(value, state[name]), name

    def test_the_log_says_the_flops_that_a_plan_counts(self, trained: TrainingSession) -> None:
        planned = facts_of(trained.spec, read_cluster(CONF / "cluster" / "h100.yaml")).sample_flops()
        assert sum(planned) > 0
        assert logged_flops(trained.folder) == pytest.approx(6 * [sum(planned)], rel=1e-9)

    def test_a_step_that_is_not_logged_waits_for_no_device(self, tmp_path: Path) -> None:
        trainer = self.training(tmp_path, "trainer.log_every=5", *_NO_SAVES).trainer
        launch, launched, read = trainer.engine.launch_step, [], []

        def watched_launch(*args: Any) -> Any:
            with host_reads() as places:
                result = launch(*args)
            launched.append({place.function for place in places})

            def watched_result() -> Any:
                with host_reads() as places:
                    output = result()
                read.append((len(launched), len(places)))
                return output

            return watched_result

        trainer.engine.launch_step = watched_launch  # type: ignore
        trainer.fit()
        assert launched == 6 * [{*self.waiting}]
        assert read == [(1, 1), (5, 1), (6, 1)]  # the last is saved

    def test_two_processes_equal_one(self, trained: TrainingSession, tmp_path: Path) -> None:
        self.equals_on(self.meshes[0], trained, tmp_path, scored=True)

    @pytest.mark.slow
    def test_two_processes_equal_one_on_every_other_mesh(self, trained: TrainingSession, tmp_path: Path) -> None:
        for number, mesh in enumerate(self.meshes[1:]):
            self.equals_on(mesh, trained, tmp_path / str(number))

    @pytest.fixture(scope="class")
    @classmethod
    def commanded(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Returns the ``runs_dir`` of one run that the command trained and scored, for tests that only use it."""
        runs_dir = tmp_path_factory.mktemp("commanded")
        main("train", [*cls._options(), *cls._arguments(runs_dir)])
        return runs_dir

    def test_every_score_has_a_baseline_and_every_figure_is_drawn(self, commanded: Path) -> None:
        folder = RunFolder.find("latest", str(commanded))
        rows = folder.scores()
        assert rows
        known = {"variable", "metric", "better", "perfect", "value", "unit", "lead_time_h", "baseline"}
        assert all(known <= set(row) for row in rows)
        assert all(row["baseline"] for row in rows)
        figures = sorted((folder.path / "figures").iterdir())
        assert figures
        assert all(figure.stat().st_size > 1000 for figure in figures)

    @pytest.mark.slow
    def test_a_run_is_scored_and_reported_again_alike(self, commanded: Path) -> None:
        folder = RunFolder.find("latest", str(commanded))
        rows, report = folder.scores(), folder.path / "report.html"
        report.unlink()
        main("report", [f"runs_dir={commanded}"])
        assert report.exists()
        main("evaluate", [f"runs_dir={commanded}"])
        assert folder.scores() == rows

    def test_an_exported_model_opens_alone(
        self, commanded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "exported"
        main("export", [f"runs_dir={commanded}", f"out={out}"])
        monkeypatch.chdir(tmp_path)
        folder = RunFolder.find("latest", str(commanded))
        kept, opened = load_model(folder), sciml.load(out)
        for (name, value), (_, other) in zip(
            kept.model.named_parameters(), opened.module.named_parameters(), strict=True
        ):
            assert torch.equal(value, other), name
        # Nothing tells where it was made, and everything else is there for its readers.
        texts = {file.name: file.read_text() for file in out.iterdir() if file.suffix in (".json", ".md")}
        assert not [name for name, text in texts.items() if str(commanded) in text]
        assert {"README.md", "config.json", "run.json", "schema.json", "scores.json"} <= set(texts)
        before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
        config = folder.record["config"]["domain"]
        if isinstance(load_domain(config), Predicts | Forecasts):
            verb = "predict" if isinstance(load_domain(config), Predicts) else "forecast"
            path = [] if verb == "predict" else [f"data.path={json.dumps(folder.record['config']['data']['path'])}"]
            main(verb, [f"run={out}", *path, *self.arguments_of(verb, tmp_path)])
        assert before == {file.name: file.stat().st_mtime_ns for file in out.iterdir()}

    def arguments_of(self, verb: str, folder: Path) -> Sequence[str]:
        """Returns the arguments that a verb needs beside the run, or the overrides; a domain with such verbs extends
        them.

        Args:
            folder: an empty one, for what it reads or writes.
        """
        usual = {
            "compare": ("rounds=1",),
            "plan": ("devices=2", "pictures=false", f"out={folder / 'plan'}"),
            "launch": ("trainer.global_batch_size=8",),
            "tune": ("devices=1", "trials=1", "steps=5", f"study={folder / 'study'}"),
        }
        return usual.get(verb, ())

    @pytest.mark.parametrize("verb", [pytest.param("compare", marks=pytest.mark.slow), "checkpoint", *USING_A_RUN])
    def test_every_verb_uses_a_run(
        self, verb: str, commanded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._run_or_refuse(verb, [f"runs_dir={commanded}"], USING_A_RUN.get(verb), tmp_path, capsys)

    @pytest.mark.parametrize(
        "verb", [*(pytest.param(verb, marks=pytest.mark.slow) for verb in ("plan", "tune")), "launch"]
    )
    def test_every_verb_prepares_a_training(
        self, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._run_or_refuse(verb, [*self._options(), *self._arguments(tmp_path)], None, tmp_path, capsys)

    @pytest.mark.parametrize("verb", WRITING)
    def test_every_verb_writes_what_others_read(
        self, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        domain = next(override for override in self.overrides if override.startswith("domain="))
        self._run_or_refuse(verb, [*self._options(), domain], WRITING[verb], tmp_path, capsys)

    def _run_or_refuse(
        self,
        verb: str,
        arguments: list[str],
        protocol: type | None,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Runs a verb, or checks that a domain that does not follow its protocol refuses it in one sentence."""
        config = compose("train", self.overrides, self.config_dir).config
        capsys.readouterr()
        if protocol is None or isinstance(load_domain(config["domain"]), protocol):
            main(verb, [*arguments, *self.arguments_of(verb, folder), "output=json"])
            said = json.loads(capsys.readouterr().out)
            assert said
            assert all(Path(picture).stat().st_size > 1000 for picture in said.get("pictures", ()))
            return
        with pytest.raises(SystemExit) as ended:
            main(verb, arguments)
        assert ended.value.code == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")

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
        double = RunFolder(ranks(2).run(train_on_ranks, arguments, self.config_dir, scored)[0])
        expected = {name: value for name, value in single.trainer.saved.tensors().items() if name.startswith("model.")}
        assert single.trainer.flops is not None
        counted = logged_flops(double)
        assert counted == pytest.approx(len(counted) * [single.trainer.flops.sample], rel=1e-9)
        loaded = load_run(double, checkpoint="latest")
        averages = single.trainer.average.averages if single.trainer.average else {}
        for name, value in loaded.model.named_parameters():
            # Muon makes rounding of the gradient larger, on some processors more than on others, but a hundred times
            # smaller than its steps; in float64 the distributed tests are strict.
            torch.testing.assert_close(
                value.detach(), averages.get(name, expected[f"model.{name}"]), rtol=1e-4, atol=5e-5
            )

    @classmethod
    def _options(cls) -> list[str]:
        return ["--config-dir", cls.config_dir] if cls.config_dir else []
