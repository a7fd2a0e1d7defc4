"""A report is one file that needs nothing else, says what the scores say, and is written whole or not at all."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from sciml.core.errors import RunError
from sciml.domain.protocol import NamedFigure, RunResult
from sciml.domain.score import Baseline, Metric
from sciml.report.html import changed_keys, flatten, next_commands, write_report
from sciml.report.loss_curve import loss_curve
from sciml.report.model_card import format_seconds, model_card, training_facts
from sciml.report.style import pretty_unit
from sciml.run.compose import compose

SCORES = [
    {
        "variable": variable, "lead_time_h": 72.0, **metric.to_row(), "value": value, "unit": unit,
        "baseline": {"persistence": 3.0, "ridge": 2.0},
    }
    for variable, metric, value, unit in [
        ("t2m", Metric("rmse"), 1.5, "K"), ("z500", Metric("rmse"), 2.5, "m2 s-2"),
        ("t2m", Metric("bias", better="nearer"), 0.1, "K"),
    ]
]  # fmt: skip
HISTORY = [{"step": s, "split": "train", "loss": 1 / s, "samples_per_s": 8.0} for s in range(1, 101)]
HISTORY += [{"step": s, "split": "valid", "loss": 1.1 / s, "skill_against_persistence": 0.5} for s in (50, 100)]
RECORD = {
    "domain": "climate",
    "config": {
        "model": {"name": "vit", "width": 64}, "data": {"path": "store.zarr"}, "trainer": {"global_batch_size": 4},
    },
    "provenance": {"git": {"commit": "abc123", "dirty": False}, "command": "train.py <domain=climate>", "user": None},
}  # fmt: skip


def red_dot(path: Path) -> Path:
    written = path.with_suffix(".png")
    Image.new("RGB", (3, 3), "red").save(written)
    return written


FIGURES = [NamedFigure("dot", "A dot", "It is red & small.", red_dot)]


def result_in(folder: Path, scores=SCORES, history=HISTORY) -> RunResult:
    return RunResult(folder, RECORD, {"title": "Synthetic <waves>"}, scores, history, {})


class Page(HTMLParser):
    """Collects what a browser would load, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.resources: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag != "a"):
                self.resources.append(value)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(result_in(folder), FIGURES, folder / "report.html")


@pytest.fixture
def page(report) -> Page:
    return Page(report.read_text(encoding="utf-8"))


def test_images_are_embedded_and_nothing_is_loaded(page, report):
    text = report.read_text(encoding="utf-8")
    assert len(page.resources) == 2  # the dot and the loss curve
    for source in page.resources:
        kind, data = source.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    for loading in ("http://", "https://", "@import", "url(", "<script src", "<link"):
        assert loading not in text
    assert (report.parent / "figures" / "dot.png").exists()
    assert (report.parent / "figures" / "loss_curve.png").exists()


def test_pictures_are_as_wide_as_they_were_drawn(report):
    assert f'style="--wide: {round(110 * 3 / 160)}px"' in report.read_text()


def test_the_card_names_variables_and_no_parts_of_them(tmp_path):
    row = {**Metric("mae").to_row(), "lead_time_h": None, "value": 1.0, "unit": "eV", "baseline": {}}
    other = {**row, **Metric("drift").to_row(), "variable": "mass"}
    rows = [{**row, "variable": "energy"}, other]
    assert model_card(result_in(tmp_path, scores=rows)).facts["Predicts"] == "energy"


def test_it_reads_in_the_dark_and_on_a_phone(page, report):
    text = report.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_it_says_what_the_scores_say(page):
    sentence = "RMSE 72 h ahead: better than persistence on all 2 variables, better than ridge on 1 of 2 variables."
    assert sentence in page.text
    assert "+25%" in page.text  # t2m: 1.5 instead of ridge's 2.0
    assert "\N{MINUS SIGN}25%" in page.text  # z500: 2.5, worse than ridge
    assert "m² s⁻²" in page.text
    assert "A simple baseline is better for 1 of 2 variables: z500 (ridge)." in page.text


def test_the_best_of_each_row_is_marked(page, report):
    text = report.read_text(encoding="utf-8")
    rows = {row.split("</th>")[0].split(">")[-1]: row for row in text.split("<table class=")[1].split("<tr>")[2:]}
    best = {name: row.split(" best")[1].split(">")[1].split("<")[0] for name, row in rows.items()}
    assert best == {"t2m": "1.50", "z500": "2.00"}


def test_scores_are_given_as_a_table_for_other_programs(report):
    text = report.read_text(encoding="utf-8")
    data = text.split('href="data:text/csv;base64,')[1].split('"')[0]
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(data, validate=True).decode())))
    assert [(row["variable"], row["metric"], float(row["model"]), float(row["ridge"])) for row in rows] == [
        ("t2m", "rmse", 1.5, 2.0), ("z500", "rmse", 2.5, 2.0), ("t2m", "bias", 0.1, 2.0),
    ]  # fmt: skip


def test_it_says_what_differs_from_the_default():
    config = compose("train", ["domain=climate", "optim.lr=0.25"]).config
    assert changed_keys({"domain": "climate", "config": config}) == {"optim.lr": 0.25}
    assert changed_keys({"domain": "of_my_own", "config": config}) == {}


def test_training_card_provenance_and_next_commands_are_there(page, report):
    facts = ("100", "about 50 s", "0.011 at step 100", "vit, width 64", "abc123", "forecast.py", "lead_time=72h")
    for words in facts:
        assert words in page.text, words
    assert "train.py <domain=climate>" in page.text  # escaped, not taken for a tag
    assert "Synthetic <waves>" in page.text
    assert "domain=climate" not in page.tags


def test_a_run_without_scores_or_training_has_a_report(tmp_path):
    page = Page(write_report(result_in(tmp_path, [], []), [], tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Nothing has been scored yet." in page.text
    assert "No training was logged." in page.text
    assert page.resources == []


def test_scores_without_lead_time_or_baselines(tmp_path):
    scores = [{"variable": "energy", "lead_time_h": None, "metric": "mae", "value": 0.1, "unit": "eV", "baseline": {}}]
    page = Page(write_report(result_in(tmp_path, scores), [], tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "MAE: no baseline was scored beside the model." in page.text
    assert "forecast.py" not in page.text


def test_a_metric_that_is_better_when_higher_is_judged_right(tmp_path):
    purity = Metric("purity", better="higher", perfect=1.0)
    spectral = Metric("log_likelihood", "log-likelihood", better="higher", perfect=None)
    for number, (metric, value, other) in enumerate([(purity, 0.9, 0.2), (spectral, -1.0, -3.0)]):
        row = {"variable": "u", "lead_time_h": None, **metric.to_row(), "value": value, "unit": "1"}
        scores = [{**row, "baseline": {"shift": other}}]
        out = tmp_path / str(number) / "report.html"
        text = write_report(result_in(tmp_path, scores), [], out).read_text(encoding="utf-8")
        assert 'class="won"' in text
        assert "better on 1 of 1" in text
        assert "higher is better" in text
        assert "A simple baseline is better" not in text
        assert text.split(" best")[1].split(">")[1].split("<")[0] == f"{value:#.3g}"
    assert "\N{MINUS SIGN}88%" in (tmp_path / "0" / "report.html").read_text(encoding="utf-8")  # (1 - 0.9) / (1 - 0.2)


def test_scores_of_files_that_know_no_directions_are_read_as_errors(tmp_path):
    new = ("label", "better", "perfect")
    scores = [{key: value for key, value in row.items() if key not in new} for row in SCORES]
    text = write_report(result_in(tmp_path, scores), [], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "RMSE 72 h ahead: better than persistence on all 2 variables" in text
    assert "lower is better" in text


def test_skill_curves_take_the_color_of_the_baseline(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("sciml.report.loss_curve.save_png", lambda figure, path: figures.append(figure))
    loss_curve(HISTORY, [Baseline("persistence", "#abcdef", "v")]).render(tmp_path / "loss")
    (curve,) = [line for line in figures[0].axes[1].lines if line.get_label().startswith("against")]
    assert (curve.get_color(), curve.get_marker()) == ("#abcdef", "v")


def test_an_earlier_report_survives_a_failure(tmp_path):
    out = tmp_path / "report.html"
    write_report(result_in(tmp_path), FIGURES, out)
    before = out.read_bytes()

    def full_disk(path: Path) -> Path:
        raise OSError(28, "No space left on device")

    with pytest.raises((RunError, OSError)):
        write_report(result_in(tmp_path), [NamedFigure("broken", "", "", full_disk)], out)
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_loss_curve_needs_two_losses_and_survives_a_nan(tmp_path):
    assert loss_curve([]) is None
    assert loss_curve(HISTORY[:1]) is None
    figure = loss_curve([*HISTORY, {"step": 101, "split": "train", "loss": float("nan")}])
    with Image.open(figure.render(tmp_path / "loss")) as image:
        assert image.size[0] > 800


def test_card_counts_parameters_of_the_best_checkpoint(tmp_path):
    import torch

    from sciml.training.checkpoint import CheckpointStore

    store = CheckpointStore(tmp_path / "checkpoints")
    weights = {"model.w": torch.zeros(3, 4), "model.buffer": torch.zeros(99), "ema.w": torch.zeros(3, 4)}
    store.save(5, weights)
    card = model_card(result_in(tmp_path))
    assert card.facts["Parameters"] == "12"
    assert card.facts["Data"] == "Synthetic <waves>"
    assert "Parameters" not in model_card(result_in(tmp_path / "nowhere")).facts


def test_facts_tell_all_steps_of_a_training_and_not_the_logged_ones_alone(tmp_path):
    history = [*HISTORY[:10], {"step": 15, "split": "valid", "loss": 0.1}]
    facts = training_facts(result_in(tmp_path, history=history))
    assert facts["Training steps"] == "15"
    assert facts["Time in training steps"] == "about 8 s"  # of half a second each


def test_small_things():
    assert flatten({"a": {"b": [1, 2], "c": None}, "d": ""}) == {"a.b": "1, 2"}
    assert [format_seconds(s) for s in (42, 300, 7200)] == ["42 s", "5 min", "2.0 h"]
    assert pretty_unit("m2 s-2") == "m² s⁻²"
    assert pretty_unit("m**2 s**-2") == "m² s⁻²"
    assert pretty_unit("K") == "K"
    assert pretty_unit("1") == ""
    assert pretty_unit("eV/A^3") == "eV/A³"
    assert json.dumps(next_commands(result_in(Path("runs/climate/x")))).count("runs/climate/x") == 4


def test_lead_times_are_sorted_by_their_length_and_not_by_the_number_that_is_shown(tmp_path):
    """Ten seconds are less than two hours, though 10 is more than 2."""
    scores = [{**SCORES[0], "lead_time_h": hours} for hours in (10 / 3600, 2.0)]
    page = write_report(result_in(tmp_path, scores), [], tmp_path / "report.html").read_text()
    cells = re.findall(r'data-order="([^"]+)">(\d+ \w+)<', page)
    assert {text: float(order) for order, text in cells} == {"10 s": pytest.approx(10 / 3600), "2 h": 2.0}
    assert "dataset.order" in page
