"""The scaling command: it trains families of sizes, goes on where it stopped, and refuses what says nothing."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from sciml.app import scaling
from sciml.app.cli import main
from sciml.core.config import build
from sciml.core.study_folder import alone
from sciml.models.fno import FNOConfig
from sciml.models.unet import UNetConfig
from sciml.models.uvit import UViTConfig
from sciml.models.widths import widened
from sciml.planning import scaling_law
from sciml.planning.scaling_law import Point
from sciml.report.scaling import of_budgets, scaling_text
from sciml.run.compose import compose
from sciml.run.spec import RunSpec
from sciml.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[3]
TOY = ["--config-dir", str(ROOT / "tests" / "conformance" / "toy" / "conf"), "domain=toy", "trainer.num_threads=1",
       "trainer.global_batch_size=4", "data.num_samples=16", "model.depth=1", "sizes=[1,1.5,2]"]  # fmt: skip


PLANNED = {"climate": [], "fluids": ["data.simulate.count=3", "data.simulate.frames=12",
                                      "data.splits={train: 1, valid: 1, test: 1}"]}  # fmt: skip


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(scaling, "LEAST_STEPS", 1)
    monkeypatch.setattr(scaling_law, "_STARTS", scaling_law._STARTS[:1])
    monkeypatch.setattr(scaling_law.ScalingStudy.fit.__func__, "__defaults__", (2,))


@pytest.mark.usefixtures("short")
def test_families_are_trained_once_and_a_prediction_is_checked(tmp_path, capsys, monkeypatch):
    deep = "reference_models={deep: {model: {depth: 2}}}"
    arguments = [*TOY, "budgets=[4e7,8e7,1.6e8]", "check=2", f"out={tmp_path}", deep]
    main("scaling", [*arguments, "output=json"])
    told = json.loads(capsys.readouterr().out)
    assert set(told["families"]) == {"model", "deep"}
    for study in told["families"].values():
        points = study["points"]
        assert len(points) == 9
        assert len({point["parameters"] for point in points}) == 3
        assert all(point["loss"] > 0 for point in points)
        for point, budget in zip(points, [4e7] * 3 + [8e7] * 3 + [1.6e8] * 3, strict=True):
            assert point["flops"] == pytest.approx(budget, rel=0.35)  # a whole number of steps
        value, low, high = study["check"]["predicted"]
        assert value > 0
        assert low <= high
        assert study["check"]["flops"] > max(point["flops"] for point in points)
    assert told == {"folder": str(tmp_path), "families": json.loads((tmp_path / "scaling.json").read_text()),
                    "pictures": [str(tmp_path / "scaling.png")]}  # fmt: skip
    assert (tmp_path / "scaling.png").stat().st_size > 10_000
    monkeypatch.setattr(Trainer, "fit", lambda *_: pytest.fail("is trained already"))
    main("scaling", arguments)
    said = capsys.readouterr().out
    assert "Check of deep: " in said
    assert "The curves of model and deep" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sizes=[1,2]"], "sizes must be at least 3 different numbers; leave sizes out"),
        (["budgets=[1e9,1e9,1e9]"], "budgets must be at least 3 different numbers"),
        (["budgets=[1e3,1e9,1e10]"], r"budgets: 1000 operations are 0 steps of model .* at least 20 are needed; use "),
        (
            ["sizes=[1,1.01,1.02]"],
            r"sizes: make only 1 different sizes of model, whose widths are rounded, and 3 are needed; use factors",
        ),
        (["budgets=[1e10,1.0001e10,1.0002e10]"], r"budgets: are fewer than 3 different numbers of steps of model with"),
        (["check=0.5"], "check must be above 1, got 0.5"),
        (["sizes=[0,1,2]"], "sizes.0 must be above 0, got 0"),
        (["size=[1,2,3]"], "size: unknown key; did you mean 'sizes'"),
        (
            ["reference_models={w: {model: {kind: window}}}"],
            "model: a model of kind 'window' does not say which of",
        ),
    ],
)
def test_what_says_nothing_is_refused(tmp_path, capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        main("scaling", [*TOY, f"out={tmp_path}", *arguments])
    assert ended.value.code == 2
    assert re.search(says, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def untrained(monkeypatch):
    """Trainings that cost nothing and come to what a law says."""
    monkeypatch.setattr(scaling, "_trained_loss", lambda spec, place, world: 0.1 + 1 / spec.trainer.max_steps)


@pytest.mark.usefixtures("short", "untrained")
def test_a_folder_keeps_to_one_configuration(tmp_path, capsys):
    arguments = [*TOY, "budgets=[4e7,8e7,1.6e8]", "check=null", f"out={tmp_path / 'study'}"]
    main("scaling", [*arguments, "sizes=[1,1.01,1.5,2]", "output=json"])
    said = capsys.readouterr()
    assert len(json.loads(said.out)["families"]["model"]["points"]) == 9  # a size that is there twice counts once
    assert "sizes 1 and 1.01 of model have the same widths and count once" in said.err
    with pytest.raises(SystemExit) as ended:
        main("scaling", [*arguments, "optim.lr=1e-5"])
    assert ended.value.code == 2
    assert re.search(
        r"out: the study in .* has optim.lr=0.002, not 1e-05; name another folder", capsys.readouterr().err
    )
    point = next((tmp_path / "study" / "trainings").glob("*/point.json"))
    point.write_text('{"parameters": 1}')
    with pytest.raises(SystemExit) as ended:
        main("scaling", arguments)
    assert ended.value.code == 2
    assert re.search(r"point.json is corrupted: .*; remove it, and it is made anew", capsys.readouterr().err)


@pytest.mark.usefixtures("untrained")
def test_a_folder_is_used_by_one_process(tmp_path, capsys):
    arguments = [*TOY, "budgets=[4e8,8e8,1.6e9]", f"out={tmp_path / 'study'}"]
    with alone(tmp_path / "study", "out"), pytest.raises(SystemExit) as ended:
        main("scaling", arguments)
    assert ended.value.code == 2
    assert "out: another process works on the study in" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_trainings_of_a_budget_are_drawn_together_however_their_steps_are_rounded():
    points = [Point(1.0, 1.0, share * flops, 1.0) for flops in (1e12, 2e12) for share in (0.9375, 0.96875)]
    assert [[point.flops for point in group] for group in of_budgets(points)] == [
        [0.9375e12, 0.96875e12], [1.875e12, 1.9375e12],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ([3, 2, 1], "At every budget the largest size of model has the lowest loss"),
        ([1, 2, 3], "At every budget the smallest size of model has the lowest loss"),
        ([2, 1, 3], None),
    ],
)
def test_a_best_size_outside_of_those_trained_is_called_a_guess(losses, says):
    points = tuple(Point(10.0**n, 1e15 / 10**n, f, loss) for f in (1e12, 2e12) for n, loss in enumerate(losses, 5))
    law = scaling_law.ScalingLaw(floor=0.2, a=60.0, alpha=0.45, b=300.0, beta=0.6, flops=40.0, power=0.8)
    text = scaling_text({"model": scaling_law.ScalingStudy(points, law, (law,))}, 1e15)
    assert (says in text) if says else ("At every budget" not in text)


@pytest.mark.parametrize("domain", ["climate", pytest.param("fluids", marks=pytest.mark.slow)])
def test_the_defaults_are_long_enough_for_every_size(domain):
    values = compose("scaling", [f"domain={domain}", "reference_models=null", *PLANNED[domain]]).config
    own = {field.name for field in fields(scaling.ScalingConfig)}
    config = build(scaling.ScalingConfig, {name: value for name, value in values.items() if name in own})
    spec = RunSpec.build({name: value for name, value in values.items() if name not in own})
    largest = scaling.Member.of("model", spec, max(config.sizes), config.cluster)
    assert largest.steps(min(config.budgets)) >= scaling.LEAST_STEPS


def test_widths_change_and_heads_keep_theirs():
    assert widened(UViTConfig(embed_dim=128, num_heads=4, conv_width=64), 0.5) == {
        "embed_dim": 64, "num_heads": 2, "conv_width": 32,
    }  # fmt: skip
    assert widened(UNetConfig(widths=(32, 64)), 1.5) == {"widths": [48, 96]}
    assert widened(FNOConfig(width=28), 0.1) == {"width": 8}
