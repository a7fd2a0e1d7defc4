"""Budgets: how many steps models get for their seconds, and that a run keeps what was decided when it began."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sciml.app.cli import main
from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.run import budgets, costs
from sciml.run.budgets import with_steps
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.reference_models import build_reference_models
from sciml.run.session import load_data
from sciml.run.spec import RunSpec
from sciml.run.start import find_run
from sciml.testing.ranks import ranks
from sciml.testing.sessions import ALONE
from sciml.training.checkpoint import CheckpointStore
from sciml.training.engine_config import build_engine

CONF = str(Path(__file__).resolve().parents[2] / "conformance" / "toy" / "conf")
TOY = ["domain=toy", "trainer.num_threads=1", "trainer.global_batch_size=4", "model.depth=1"]
OWN_STEPS = "trainer.max_steps=6"
WINDOW = "reference_models={window: {model: {kind: window}, budget: equal}}"
WIDE = "reference_models={wide: {model: {embed_dim: 64}, budget: 3}}"
STEP_S = {"model": 0.5, "window": 0.25, "wide": 1.0}


@pytest.fixture
def measured(monkeypatch):
    """The models whose steps were measured, at made-up costs."""
    found = []

    def measure(steps, world, rounds):
        found.append(set(steps))
        return {name: STEP_S[name] for name in steps}

    monkeypatch.setattr(budgets, "measure_in_turn", measure)
    return found


def decided(*arguments, world=ALONE):
    """The steps of the run's model and of its reference models."""
    toy = compose("train", [*TOY, *arguments], CONF)
    spec = RunSpec.build(with_steps(toy.config, toy.overrides, None, world))
    references = {(model.name, model.number): model.spec for model in build_reference_models(spec)}
    assert all(reference.trainer.budget_s is None for reference in references.values())
    return spec.trainer.max_steps, {key: reference.trainer.max_steps for key, reference in references.items()}


@pytest.mark.parametrize(
    ("arguments", "own", "references"),
    [
        ([OWN_STEPS, WINDOW], 6, {"window": 12}),
        ([OWN_STEPS, WIDE], 6, {"wide": 3}),
        (["trainer.budget_s=4", WINDOW, WIDE], 8, {"window": 16, "wide": 3}),
        (["trainer.budget_s=4", WINDOW, "reference_models.window.budget=null"], 8, {"window": 8}),
        (["trainer.budget_s=1e-6", WIDE, "reference_models.wide.budget=1e-6"], 1, {"wide": 1}),
        ([OWN_STEPS, WINDOW, "reference_models.window.at_most_s=1"], 6, {"window": 4}),
        ([OWN_STEPS, WINDOW, "reference_models.window.at_most_s=100"], 6, {"window": 12}),
    ],
)
def test_a_budget_gives_as_many_steps_as_it_pays_for(measured, arguments, own, references):
    assert decided(*arguments) == (own, {(name, 0): steps for name, steps in references.items()})
    assert len(measured) == 1


@pytest.mark.parametrize(("ranks", "kept"), [(2, {("wide", 0), ("window", 0)}), (8, {("wide", 0)})])
def test_a_model_of_another_kind_is_left_out_where_ranks_cannot_share_its_batch(measured, capsys, ranks, kept):
    """Four samples suit two data-parallel ranks, whatever the run itself is cut into, and not eight."""
    toy = compose("train", [*TOY, WIDE, WINDOW, f"parallel.tp={ranks}"], CONF)
    spec = RunSpec.build(budgets._without_misfits(RunSpec.build(toy.config), World(0, ranks, torch.device("cpu"))))
    models = build_reference_models(spec)
    assert {(model.name, model.number) for model in models} == kept
    assert [m.spec.parallel.tp for m in models] == [1 if m.name == "window" else ranks for m in models]
    assert ("reference model window is left out: " in capsys.readouterr().err) == (ranks == 8)


def test_without_a_budget_nothing_is_measured(measured):
    assert decided(OWN_STEPS, "reference_models={wide: {model: {embed_dim: 64}}}") == (6, {("wide", 0): 6})
    assert not measured


def test_all_seeds_get_the_steps_of_the_first(measured):
    steps = {("window", 0): 16, ("model", 1): 8, ("window", 1): 16}
    assert decided("trainer.budget_s=4", WINDOW, "seeds=2") == (8, steps)
    assert measured == [{"model", "window"}]


def test_the_command_says_what_it_decided_and_a_resumed_run_keeps_it(measured, tmp_path, capsys):
    toy = ["--config-dir", CONF, *TOY, f"runs_dir={tmp_path}", "data.num_samples=8"]
    begun = ["trainer.budget_s=2", "reference_models.window={model: {kind: window}, budget: equal}", "seeds=2"]
    main("train", [*toy, *begun])
    said = capsys.readouterr().err
    assert "the run's model: 4 steps, which cost 2 CPU s\n" in said
    assert "reference model window: 8 steps, which cost as much as the run's 4\n" in said
    folder = RunFolder.find("latest", str(tmp_path))
    trained = {"model-0": folder}
    trained |= {path.name: RunFolder(path) for path in (folder.path / "reference_models").iterdir()}
    steps = {"model-0": 4, "model-1": 4, "window-0": 8, "window-1": 8}
    assert {name: run.record["config"]["trainer"]["max_steps"] for name, run in trained.items()} == steps
    assert {name: CheckpointStore(run.checkpoints).steps()[-1] for name, run in trained.items()} == steps
    for path in (trained["window-1"].path / "checkpoints").iterdir():  # as if it had ended early
        path.rename(path.with_name(f"gone-{path.name}"))
    main("train", [*toy, *begun, f"resume={folder.path}"])
    assert len(measured) == 1
    assert {name: CheckpointStore(run.checkpoints).steps()[-1] for name, run in trained.items()} == steps
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main("train", [*toy, f"resume={folder.path}", "reference_models.window.budget=3"])
    said = capsys.readouterr().err
    assert "reference_models.window.budget: is decided when a run begins, and this one has equal; begin a new" in said
    resumed = compose("train", [*toy[2:], f"resume={folder.path}", "trainer.max_steps=9"], CONF)
    start = find_run(resumed, ALONE)
    longer = with_steps(start.config, resumed.overrides, start.folder, ALONE)
    assert longer["trainer"]["max_steps"] == 9
    assert longer["reference_models"]["window"]["trainer"]["max_steps"] == 18  # equal to the nine, and not to four
    chosen = compose("train", [*toy[2:], f"resume={folder.path}", "trainer=default", "trainer.budget_s=2"], CONF)
    start = find_run(chosen, ALONE)
    assert with_steps(start.config, chosen.overrides, start.folder, ALONE)["trainer"]["max_steps"] == 4


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["reference_models.wide.budget=fast"], "^reference_models.wide.budget must be equal, or seconds above 0, got"),
        (["reference_models.wide.budget=fast"], "got 'fast'$"),
        (["reference_models.wide.budget=-3"], "must be equal, or seconds above 0, got -3"),
        (["reference_models.wide.budget=true"], "must be equal, or seconds above 0, got true"),
        (["reference_models.wide.budget=[3]"], r"must be equal, or seconds above 0, got \[3\]"),
        (["reference_models.wide.at_most_s=9"], "reference_models.wide.at_most_s: is a limit to budget: equal; leave"),
        (["reference_models.wide.budget=equal", "reference_models.wide.at_most_s=0"], "must be seconds above"),
        (["reference_models.wide.budgt=3"], "reference_models.wide.budgt: unknown group of keys; did you mean 'bu"),
        (["reference_models.wide.trainer.max_steps=3"], "reference_models.wide.budget: cannot be given together with"),
        (["reference_models.wide.trainer.budget_s=3"], "wide.trainer.budget_s: is that of the run; use reference"),
        (["reference_models.wide.model=3"], "reference_models.wide.model must be a group of keys, got 3"),
        (["trainer.budget_s=0"], "trainer.budget_s must be above 0, got 0"),
        (["trainer.budget_s=3", OWN_STEPS], "trainer.budget_s: cannot be given together with trainer.max_steps"),
    ],
)  # fmt: skip
def test_bad_budgets_are_refused(measured, given, says):
    with pytest.raises(ConfigError, match=says):
        decided(WIDE, *given)
    assert not measured


def test_steps_are_measured_in_turn_without_their_preparation(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(costs.time, "process_time", lambda: clock[0])

    def step(name, seconds):
        def spend(amount):
            order.append(name)
            clock[0] += amount

        def prepare(number):
            clock[0] += 100.0
            return lambda: spend(seconds[number])

        return prepare

    steps = {"slow": step("slow", [50.0, 2.0, 9.0, 3.0]), "fast": step("fast", [50.0, 1.0, 1.0, 8.0])}
    assert costs.measure_in_turn(steps, ALONE, 3) == {"slow": 3.0, "fast": 1.0}
    assert order == ["slow", "fast"] * 4


def test_measured_steps_leave_the_weights_as_they_are():
    spec = RunSpec.build(compose("train", [*TOY, "trainer.micro_batch_size=2"], CONF).config)
    splits = load_data(spec, None, None)
    mesh = costs.Mesh.alone()
    step = costs.training_step(spec, spec.domain.task(spec, splits), splits, mesh, rounds=1)
    losses = [step(number)().loss for number in range(2)]
    again = costs.training_step(spec, spec.domain.task(spec, splits), splits, mesh, rounds=1)
    again(0)
    assert again(1)().loss == losses[1]


@pytest.mark.parametrize(("precision", "is_fast"), [("auto", True), ("auto", False), ("bf16", False)])
def test_steps_are_measured_in_the_precision_of_the_training(monkeypatch, precision, is_fast):
    monkeypatch.setattr("sciml.training.precision.multiplies_bf16", lambda device: is_fast)
    spec = RunSpec.build(compose("train", [*TOY, f"trainer.precision={precision}", "optim.ema_decay=0.5"], CONF).config)
    splits = load_data(spec, None, None)
    built = []
    monkeypatch.setattr(costs, "build_engine", lambda *config: built.append(build_engine(*config)) or built[-1])
    step = costs.training_step(spec, spec.domain.task(spec, splits), splits, costs.Mesh.alone(), rounds=1)
    assert step(0)().loss > 0
    assert built[0].math.dtype == (torch.bfloat16 if "bf16" in precision or is_fast else None)


def test_steps_are_measured_with_the_blocks_that_the_training_compiles(monkeypatch):
    compiled = []
    monkeypatch.setattr("sciml.training.compilation.compile_blocks", compiled.append)
    for choice in ("true", "false", "auto"):
        spec = RunSpec.build(compose("train", [*TOY, f"trainer.compile={choice}"], CONF).config)
        splits = load_data(spec, None, None)
        costs.training_step(spec, spec.domain.task(spec, splits), splits, costs.Mesh.alone(), rounds=1)
    assert len(compiled) == 1


def test_the_loading_of_batches_counts_where_it_takes_the_same_seconds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(costs.time, "process_time", lambda: clock[0])

    def spend(seconds):
        clock[0] += seconds

    def step_of(*_):
        return lambda number: spend(2.0) or (lambda: spend(3.0))

    monkeypatch.setattr(budgets, "training_step", step_of)
    assert decided("trainer.budget_s=50")[0] == 10


def decide(world):
    torch.set_num_threads(1)
    return decided("trainer.budget_s=0.2", WINDOW, world=world)


def test_all_ranks_decide_alike():
    first, second = ranks(2).run(decide)
    assert first == second
    assert min(first[0], first[1]["window", 0]) >= 1


def test_rounds_are_spread_over_a_training_that_learns_other_things_late():
    spec = RunSpec.build(compose("train", [*TOY, OWN_STEPS], CONF).config)
    splits = load_data(spec, None, None)
    task, seen = spec.domain.task(spec, splits), []
    task.phase, task.at_step = 0, lambda step, steps: seen.append(step / steps)
    step = costs.training_step(spec, task, splits, Mesh(ALONE, {}), 4)
    for number in range(5):
        step(number)()
    assert seen == [0, 1 / 8, 3 / 8, 5 / 8, 7 / 8]
