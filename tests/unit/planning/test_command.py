"""The command: what it writes and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sciml.app.cli import main
from sciml.app.help import help_text
from sciml.report.tables import WIDTH
from sciml.run.compose import MADE
from tests.unit.planning.models import facts_found_once

SMALL = ["domain=climate", "model=plain_vit_tiny", "cluster=frontier", "scaling=[]", "trainer.global_batch_size=16"]
FEW = ["precisions=[bf16]", "parallel.sp=1"]


@pytest.fixture(scope="module", autouse=True)
def _facts_found_once():
    with facts_found_once("sciml.app.plan"):
        yield


@pytest.fixture
def planned(tmp_path, capsys):
    def run(*arguments):
        main("plan", [*SMALL, f"out={tmp_path / 'plan'}", *arguments])
        return capsys.readouterr().out, tmp_path / "plan"

    return run


@pytest.fixture
def refused(tmp_path, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main("plan", [*arguments, f"out={tmp_path / 'plan'}"])
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert ended.value.code == 2, said
        assert not (tmp_path / "plan").exists()
        return said

    return run


def test_a_plan_is_told_and_written(planned):
    text, folder = planned("devices=8", *FEW)
    for words in (
        "parameters",
        "Best strategy: ",
        "MFU",
        "memory of a device",
        "divide the work",
        "20 bytes a parameter",
    ):
        assert words in text
    assert "\x1b" not in text
    assert "communication volume" in text
    assert max(len(line) for line in text.splitlines() if "=" not in line) <= WIDTH
    document = json.loads((folder / "plan.json").read_text())
    assert document["devices"] == 8
    assert document["best"]["memory"] < 64e9
    assert document["best"]["step_s"] == pytest.approx(sum(document["best"]["step_parts_s"].values()))
    assert (folder / "memory.png").stat().st_size > 10_000
    assert (folder / "degrees.png").stat().st_size > 10_000


def test_engines_are_chosen_from(planned):
    arguments = ["devices=2", "output=json", "pictures=false", "engines=[native,deepspeed]", "parallel.shard=2", *FEW]
    text, _ = planned(*arguments, "model.recompute=none", "trainer.micro_batch_size=8")
    document = json.loads(text)
    assert document["examined"] == 2 * 3  # stages of ZeRO with each
    assert any("engine=deepspeed" in tie["overrides"] for tie in document["ties"])


def test_a_pipeline_is_drawn_and_tried_out(planned):
    text, folder = planned("devices=16", "--dry-run", "parallel.pp=2", "parallel.tp=2", "model.recompute=none", *FEW)
    assert "Dry run: " in text
    document = json.loads((folder / "plan.json").read_text())
    assert {rank["coordinates"]["pp"] for rank in document["dry_run"]} == {0, 1}
    assert all(rank["nodes"]["tp"] == 1 for rank in document["dry_run"])
    assert (folder / "schedules.png").stat().st_size > 10_000


def test_an_experiment_brings_its_plan(tmp_path, capsys):
    main("plan", ["experiment=frontier_1t", "pictures=false", "output=json", f"out={tmp_path}"])
    document = json.loads(capsys.readouterr().out)
    best = document["best"]
    assert (document["devices"], document["examined"]) == (3072, 1)
    assert best["strategy"] == "tp=8 shard=6 pp=64 zero=1"
    assert best["hardware_flops"] == pytest.approx(0.3196, rel=0.05)
    assert best["model_flops"] == pytest.approx(0.75 * best["hardware_flops"], rel=0.01)
    assert best["memory"] < 64e9


def test_json_is_one_document(planned):
    text, _ = planned("devices=2", "output=json", "pictures=false", *FEW, "parallel.tp=2")
    document = json.loads(text)
    assert document["best"]["strategy"].startswith("tp=2")
    assert "parallel.tp=2" in document["best"]["overrides"]
    assert document["pictures"] == []


def test_hours_are_those_of_the_samples_that_are_asked_for(planned):
    _, folder = planned(
        "devices=2", "search=false", "pictures=false", "samples=1e6", "trainer.global_batch_size=64",
        "trainer.precision=bf16",
    )  # fmt: skip
    document = json.loads((folder / "plan.json").read_text())
    assert document["training"]["steps"] == 15_625
    assert document["best"]["hours"] == pytest.approx(15_625 * document["best"]["step_s"] / 3600)


def test_a_plan_without_a_search_is_of_what_is_configured(planned):
    text, folder = planned(
        "devices=4", "search=false", "parallel.pp=2", "parallel.shard=2", "parallel.zero=1", "pictures=false",
        "trainer.micro_batch_size=2", "trainer.precision=bf16",
    )  # fmt: skip
    document = json.loads((folder / "plan.json").read_text())
    assert document["examined"] == 1
    assert document["best"]["strategy"] == "shard=2 pp=2 zero=1"
    assert "micro-batches of 2" in text


TOY = [f"--config-dir={Path(__file__).parents[2] / 'conformance' / 'toy' / 'conf'}", "domain=toy", "cluster=frontier"]


def test_a_model_without_a_sharding_plan_is_planned_over_data_parallel_and_sharded_ranks(tmp_path, capsys):
    main(
        "plan",
        [*TOY, "devices=2", "precisions=[fp32]", "scaling=[]", "pictures=false", "output=json", f"out={tmp_path}"],
    )
    document = json.loads(capsys.readouterr().out)
    strategies = {tie["strategy"].split()[0] for tie in document["ties"]}
    assert strategies <= {"dp=2", "shard=2"}
    assert document["ranked"] > 0
    assert any("RingModel, which has no sharding plan" in reason for reason in document["refused"])


def test_degrees_that_need_a_sharding_plan_are_refused_in_a_sentence(refused):
    said = refused(*TOY, "devices=2", "parallel.tp=2")
    assert "parallel.tp must be 1 for RingModel, which has no sharding plan, got 2" in said
    assert "try parallel.dp or parallel.shard" in said


def test_a_machine_that_was_not_measured_yet_is_told_how(refused, monkeypatch):
    """Under another name, since a developer may have measured this one."""
    assert MADE == {"cluster=this_machine": "doctor"}
    monkeypatch.setitem(MADE, "cluster=that_machine", "doctor")
    said = refused("domain=language", "devices=2", "cluster=that_machine")
    assert "cluster: this machine was not measured yet; measure it once with: " in said
    assert re.search(r"doctor(.py)? --measure$", said)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cluster=fronter"], "cluster: unknown option 'fronter'; did you mean 'frontier'"),
        (["cluster=generic"], "cluster.memory_gb: is not known of cluster=generic; write it, e.g."),
        (["devices=0"], "devices must be at least 1, got 0"),
        (["devices=12"], "devices must be a whole number of nodes with 8 devices, got 12; try devices=16"),
        (["devices=80000"], "devices must be at most the 78848 of frontier, got 80000; try devices=78848"),
        (["samples=0"], "samples must be above 0, got 0"),
        (["samples=100", "trainer.max_steps=5"], "samples: cannot be given together with trainer.max_steps; leave one"),
        (["margin=1.5"], "margin must be below 1, got 1.5; try margin=0.05"),
        (["precisions=[fp8]"], "precisions.0 must be one of fp32, bf16, fp16, got 'fp8'"),
        (["precisions=[bf16]", "trainer.precision=bf16"], "precisions: cannot be given together with trainer"),
        (["cluster=summit", "devices=6", "trainer.precision=bf16"], "which summit has matrix units for, got bf16"),
        (["search=false", "devices=8", "parallel.tp=16"], "parallel.tp: tp 16 does not fit 8 processes"),
        (["parallel.interleave=2"], "parallel.interleave: the schedule 1f1b runs one stage a rank"),
        (["engines=[nativ]"], "engines.0 must be one of native, deepspeed, got 'nativ'; did you mean 'native'?"),
        (["compute_efficiency=40"], "compute_efficiency must be at most 1, got 40"),
        (["accounting=talk"], "accounting: is now called 'megatron_fp16', got 'talk'; try accounting=megatron_fp16"),
        (["devises=8"], "devises: unknown key; did you mean 'devices'"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_data_are_read(refused, arguments, says):
    said = refused("data.path=nowhere.zarr", *arguments)
    assert says in said, said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["devices=8", "parallel.tp=3"], r"parallel.tp: 3 ranks cannot share .* evenly; degrees that work: 1, 2, 4"),
        (["devices=104"], r"devices: no mesh shares the work among 104 devices .*; devices=\d+"),
        (["devices=8", "parallel.pp=8"], r"parallel.pp: 8 stages are more than the model's 4 blocks; at most 4"),
        (
            ["devices=1", "optim=adamw", "cluster.memory_gb=0.05", "margin=0", "trainer.global_batch_size=64", *FEW],
            r"devices: nothing fits 1 devices of frontier: .* GB of the 0.05 GB of a device; "
            r"the smallest number that would is devices=\d+",
        ),
        (
            ["devices=1", "cluster.memory_gb=0.0001", "cluster.num_nodes=1", "margin=0", *FEW],
            "devices: nothing fits 1 devices of frontier: .*; nor on 8; take a smaller model",
        ),
    ],
)  # fmt: skip
def test_what_the_model_does_not_allow_is_refused(refused, arguments, says):
    said = refused("domain=climate", "model=plain_vit_tiny", "trainer.global_batch_size=16", *arguments)
    assert re.search(says, said), said


def test_help_shows_clusters_and_keys():
    text = help_text("plan")
    assert "frontier" in text
    assert "devices=8" in text


def test_a_budget_of_seconds_decides_the_steps(planned):
    text, _ = planned("devices=8", *FEW, "trainer.budget_s=60")
    line = next(line for line in text.splitlines() if "trainer.budget_s=60" in line)
    steps = int(re.search(r"([\d,]+) steps in", line).group(1).replace(",", ""))
    assert steps > 1000
