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
        assert set(row["baseline"]) == BASELINES
        for name, value in row["baseline"].items():
            assert row["value"] < value, (row["variable"], name)
