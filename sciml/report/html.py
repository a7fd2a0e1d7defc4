"""A run as one HTML file: pictures inside, nothing loaded from anywhere, readable on a phone and in the dark."""

from __future__ import annotations

import base64
import csv
import io
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from sciml.core.command_line import command
from sciml.core.config import flat
from sciml.core.errors import ConfigError
from sciml.core.files import atomic_file, disk_errors
from sciml.domain.protocol import NamedFigure, RunResult
from sciml.domain.score import Metric
from sciml.report.loss_curve import loss_curve
from sciml.report.model_card import model_card, training_facts
from sciml.report.scores import ScoreLine, Scores, format_value, headline, lead_as_typed, sentence, wins_over
from sciml.report.style import label_of, pixels_on_screen, pretty_unit
from sciml.run.compose import compose
from sciml.run.spec import GROUPS

TEMPLATE = "report.html.j2"
MIME = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Picture:
    """Holds a drawn figure, as the template wants it.

    Attributes:
        width: most pixels of the screen that it is shown on, so that text has one size in all; None fills the page.
    """

    name: str
    title: str
    caption: str
    source: str
    width: int | None = None


def write_report(
    result: RunResult,
    figures: Iterable[NamedFigure],
    out: Path,
    *,
    commands: Sequence[tuple[str, str]] | None = None,
) -> Path:
    """Draws the figures into ``figures/`` beside the report and writes the report in one piece.

    Args:
        result: what the run left behind.
        figures: of the domain; the loss curve is added here.
        out: the file to write, e.g. ``runs/climate/.../report.html``.
        commands: (what for, command) to go on with; by default those that every run allows.

    Returns:
        The written file.

    Raises:
        RunError: where it cannot be written; an earlier report is then kept.
    """
    folder = out.parent / "figures"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    loss = loss_curve(result.history, result.baselines)
    context = {
        "title": f"{result.record.get('domain', 'run')} · {result.directory.name}",
        "source": result.schema.get("title", ""),
        **_score_context(result),
        "pictures": [_draw(figure, folder) for figure in figures],
        "loss": _draw(loss, folder) if loss else None,
        "training": training_facts(result),
        "card": model_card(result),
        "provenance": flatten(result.record.get("provenance") or {}),
        "config": flatten(result.record.get("config") or {}),
        "changed": flatten(changed_keys(result.record)),
        "csv": f"data:text/csv;base64,{base64.b64encode(scores_csv(result.scores).encode()).decode()}",
        "commands": next_commands(result) if commands is None else commands,
    }
    with atomic_file(out) as temporary:
        temporary.write_text(_environment().get_template(TEMPLATE).render(context), encoding="utf-8")
    return out


def next_commands(result: RunResult, *, is_exported: bool = False) -> list[tuple[str, str]]:
    """Returns what can be done with a run, as commands to copy; an exported model is not trained on."""
    run = result.directory
    commands = [("Score it again, perhaps on other data", command("evaluate", run=run))]
    if not is_exported:
        commands += [
            ("Draw this report again", command("report", run=run)),
            ("Train on", command("train", "trainer.max_steps=...", resume=run)),
        ]
    lead = Scores.of(result).main_lead_time
    if lead is not None:
        commands.insert(0, ("Forecast", command("forecast", run=run, lead_time=lead_as_typed(lead, result.time_text))))
    return commands


def scores_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns scores as a table of comma-separated values: a line each, the model's interval and the baselines in
    columns.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.get("baseline") or {}))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variable", "lead_time_h", "metric", "unit", "cases", "model", "from", "to", *names])
    for row in rows:
        facts = [row["variable"], row.get("lead_time_h"), row["metric"], row.get("unit"), row.get("cases")]
        facts += [row["value"], *(row.get("interval") or (None, None))]
        writer.writerow([*facts, *((row.get("baseline") or {}).get(name) for name in names)])
    return text.getvalue()


def changed_keys(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of a run that differ from the default of its domain; none where that is not known."""
    try:
        usual = flat(compose("train", [f"domain={record.get('domain')}"]).config)
    except ConfigError:  # a domain of the user's own
        return {}
    own = {key: value for key, value in flat(record.get("config") or {}).items() if key.partition(".")[0] in GROUPS}
    found = {key: value for key, value in own.items() if key not in usual or usual[key] != value}
    return {key: value for key, value in found.items() if key != "data.cache"}  # a place, and no choice


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Returns nested mappings as dotted keys; empty values are left out."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{key}.")
        elif isinstance(value, (list, tuple)):
            flat[key] = ", ".join(map(str, value))
        elif value is not None:
            flat[key] = str(value)
    return {key: text for key, text in flat.items() if text != ""}


def _score_context(result: RunResult) -> dict[str, Any]:
    scores = Scores.of(result)
    lines = scores.main_lines
    return {
        "headline": headline(lines, scores.time_text),
        "metric": scores.primary_metric,
        "leads": {line.lead_time_h for line in lines if line.lead_time_h is not None},
        "time": scores.time_text,
        "baselines": scores.predictors,
        "lines": lines,
        "chips": [_chip(lines, name) for name in scores.predictors if any(name in line.values for line in lines)],
        "all_scores": [(metric, _all_lines(scores, metric)) for metric in scores.metrics],
    }


def _all_lines(scores: Scores, metric: Metric) -> list[ScoreLine]:
    """Returns one metric at every lead time, those without a lead time first."""
    return [line for lead in (None, *scores.lead_times(metric)) for line in scores.lines(metric, lead)]


def _chip(lines: Sequence[ScoreLine], baseline: str) -> dict[str, Any]:
    """Returns how the model stands against one baseline, over all variables."""
    gains = [line.gain_over(baseline) for line in lines if baseline in line.values]
    finite = [gain for gain in gains if math.isfinite(gain)]
    wins, number = wins_over(lines, baseline)
    state = "won" if wins == number else "mixed" if wins else "lost"
    change = -sum(finite) / len(finite) if finite else None
    return {"name": baseline, "wins": wins, "of": number, "change": change, "state": state}


def _draw(figure: NamedFigure, folder: Path) -> Picture:
    with disk_errors(folder / figure.name), tempfile.TemporaryDirectory(prefix=".", dir=folder) as hidden:
        drawn = figure.render(Path(hidden) / figure.name)
        written = drawn.replace(folder / drawn.name)  # an interrupted report leaves earlier pictures whole
    data = written.read_bytes()
    source = f"data:{MIME[written.suffix]};base64,{base64.b64encode(data).decode('ascii')}"
    width = pixels_on_screen(data) if written.suffix == ".png" else None
    return Picture(figure.name, figure.title, figure.caption, source, width)


def _environment() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def load(name: str) -> str:
        return files("sciml.report").joinpath(name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        value=format_value,
        gain=_signed_percent,
        unit=pretty_unit,
        label=label_of,
        sentence=sentence,
    )
    return environment


def _signed_percent(share: float) -> str:
    return "\N{EN DASH}" if math.isnan(share) else f"{share:+.0%}".replace("-", "\N{MINUS SIGN}")
