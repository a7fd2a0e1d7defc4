import json

from sciml.training.callbacks import MetricsLog, ProgressView
from sciml.training.utilization import ModelFlops

RECORD = {"loss": 0.5, "samples_per_s": 10.0}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_one_object_a_line(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", every=2)
    for step in range(1, 6):
        log.on_step(step, RECORD)
    log.on_validation(5, {"loss": 0.4})
    log.close()
    assert [(row["step"], row["split"]) for row in rows(tmp_path / "metrics.jsonl")] == [
        (1, "train"), (2, "train"), (4, "train"), (5, "valid"),
    ]  # fmt: skip


def test_a_resumed_log_drops_the_steps_that_are_done_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, every=1)
    for step in range(1, 6):
        log.on_step(step, RECORD)
    log.close()
    with path.open("a") as file:
        file.write('{"step": 6, "spl')  # a run that was killed while it wrote
    log = MetricsLog(path, every=1, resume_step=3)
    log.on_step(4, {**RECORD, "loss": 0.1})
    log.close()
    assert [row["step"] for row in rows(path)] == [1, 2, 3, 4]
    assert rows(path)[-1]["loss"] == 0.1


def test_the_bar_shows_what_a_device_computes_and_its_share_of_a_known_peak(capsys):
    for peak in (None, 400e12):
        ProgressView(max_steps=1).on_step(1, {**RECORD, **ModelFlops(2e13, peak).record(samples_per_s=5.0)})
    lines = capsys.readouterr().err.splitlines()
    assert "10 samples/s  100 TFLOP/s  0 s left" in lines[0]
    assert "10 samples/s  100 TFLOP/s (25% MFU)  0 s left" in lines[1]


def test_plain_lines_show_step_loss_speed_and_time_left(capsys):
    view = ProgressView(max_steps=3)
    for step in range(1, 4):
        view.on_step(step, RECORD)
    view.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 1/3  loss 0.5000  10 samples/s")
    assert lines[-1].endswith("0 s left")


def test_progress_without_validation_samples_goes_on(capsys):
    view = ProgressView(max_steps=1)
    view.on_validation(1, {})
    view.on_step(1, {"loss": 0.5, "samples_per_s": 2.0})
    assert "loss 0.5000  2 samples/s" in capsys.readouterr().err
