"""What the README promises of its first command: the default run beats its baselines on every variable."""

import json

import pytest

from sciml.app.cli import main

BASELINES = {"persistence", "climatology", "weekly_climatology", "mean_climatology", "ridge"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_default_run_beats_every_baseline_72_hours_ahead(tmp_path, capsys):
    main("train", ["domain=climate", f"runs_dir={tmp_path}", "output=json"])
    rows = [row for row in json.loads(capsys.readouterr().out)["scores"] if row["metric"] == "rmse"]
    assert {row["lead_time_h"] for row in rows} == {24, 48, 72, 96, 120}
    at_72_h = [row for row in rows if row["lead_time_h"] == 72]
    assert len(at_72_h) == 16
    for row in at_72_h:
        assert set(row["baseline"]) == {*BASELINES, "unet"}
        for name in BASELINES:
            assert row["value"] < row["baseline"][name], (row["variable"], name)
    assert sum(row["value"] < row["baseline"]["unet"] for row in at_72_h) > 8


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_flows_are_forecast_better_than_by_a_neural_operator_and_a_coarser_solver(tmp_path, capsys):
    cache = tmp_path / "cache"
    main("train", ["domain=fluids", f"runs_dir={tmp_path}", f"data.cache={cache}", "output=json"])
    rows = [row for row in json.loads(capsys.readouterr().out)["scores"] if row["metric"] == "vrmse"]
    assert len(rows) == 4 * 3
    for row in rows:
        judges = {"persistence", "fno", "propagator", "solver_coarser_by_2", "solver_coarser_by_4"}
        assert set(row["baseline"]) == judges
        for name in ("persistence", "fno", "solver_coarser_by_4"):
            assert row["value"] < row["baseline"][name], (row, name)
    for lead in {row["lead_time_h"] for row in rows}:
        chosen = [row for row in rows if row["lead_time_h"] == lead]
        for name in ("propagator", "solver_coarser_by_2"):
            assert sum(row["value"] for row in chosen) < sum(row["baseline"][name] for row in chosen), (lead, name)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_text_is_told_in_a_bit_less_than_pairs_of_bytes_need(tmp_path, capsys):
    main("train", ["domain=language", f"runs_dir={tmp_path}", "output=json"])
    rows = json.loads(capsys.readouterr().out)["scores"]
    (bits,) = (row for row in rows if row["metric"] == "bits_per_byte")
    assert bits["value"] < bits["baseline"]["bigram"] - 1 < bits["baseline"]["unigram"] - 1
