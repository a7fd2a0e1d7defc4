"""The report of a run, drawn from its files alone, and the summary that a scored run ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sciml.core.command_line import command
from sciml.core.errors import ConfigError
from sciml.core.files import read_json, read_safetensors
from sciml.core.progress import track
from sciml.core.result import CommandResult
from sciml.domain.forecasting import Forecasts
from sciml.domain.optional import Predicts, SamplesThermodynamics, Screens, SuggestsArguments
from sciml.domain.protocol import Domain, RunResult
from sciml.domain.score import ScoreRow
from sciml.report.html import next_commands, write_report
from sciml.report.model_card import few_samples
from sciml.report.scores import Scores, headline, headline_lead_of, lead_as_typed, time_text_of
from sciml.run.folder import RunFolder
from sciml.run.loaded import SCHEMA, STATISTICS
from sciml.run.scoring import COSTS, EXAMPLE, Evaluation


def report_evaluation(evaluation: Evaluation) -> CommandResult:
    """Draws the report of an evaluation and says in a few lines how good the model is and what can be done with it."""
    run, domain = evaluation.run, evaluation.run.spec.domain
    folder, schema = run.folder.path, read_json(evaluation.path / SCHEMA, dict[str, Any])
    scores = Scores.in_domain(evaluation.scores, domain, time_text_of(domain, schema))
    report = draw_report(run.folder, domain, evaluation.path)
    following = _next_commands(domain, folder, scores)
    lines = [
        *few_samples(len(run.splits.test)),
        headline(scores.main_lines, scores.time_text),
        f"report      {report}",
        f"checkpoint  {evaluation.checkpoint}",
        *(f"{'' if n else 'next':<12}{line}" for n, line in enumerate(following)),
    ]
    document: dict[str, Any] = {"run": str(folder), "report": str(report), "checkpoint": str(evaluation.checkpoint)}
    return CommandResult({**document, "scores": evaluation.scores, "finished": True}, "\n".join(lines))


def draw_report(folder: RunFolder, domain: Domain, path: Path | None = None) -> Path:
    """Draws the figures of a run from its files and assembles ``report.html``.

    Args:
        path: folder that has the scores and gets the report; by default the run's own, else one of an evaluation in it.

    Returns:
        The written file.

    Raises:
        ConfigError: where the run was never scored.
    """
    path = path or folder.path
    example = path / EXAMPLE
    if not example.exists() and folder.is_exported:
        hint = f"score it, which draws one: {command('evaluate', run=folder.path)}"
        raise ConfigError(f"{folder.path} is an exported model, whose folder has no report", key="run", hint=hint)
    if not example.exists():
        raise ConfigError(f"{folder.path} was never scored", key="run", hint=command("evaluate", run=folder.path))
    schema = read_json(path / SCHEMA, dict[str, Any])
    result = RunResult(
        directory=folder.path,
        record=folder.record,
        schema=schema,
        scores=read_json(path / "scores.json", list[ScoreRow]),
        history=folder.history(),
        example=read_safetensors(example, "np"),
        baselines=domain.baselines,
        headline_lead_h=headline_lead_of(domain),
        time_text=time_text_of(domain, schema),
        costs=read_json(path / COSTS, dict[str, dict[str, float]]) if (path / COSTS).exists() else {},
    )
    figures = track(domain.figures(result), "drawing figures")
    commands = [
        *_commands_of(domain, folder.path),
        *next_commands(result, is_exported=folder.is_exported),
    ]
    return write_report(result, figures, path / "report.html", commands=commands)


def _next_commands(domain: Domain, run: Path, scores: Scores) -> list[str]:
    commands = [*(command for _, command in _commands_of(domain, run)), command("evaluate", run=run)]
    lead = scores.main_lead_time
    if isinstance(domain, Forecasts) and lead is not None:
        commands.insert(0, command("forecast", run=run, lead_time=lead_as_typed(lead, scores.time_text)))
    return commands


def _commands_of(domain: Domain, run: Path) -> list[tuple[str, str]]:
    """Returns uses of a trained model that only some domains have: what for, and the command."""
    uses: tuple[tuple[type, str, str], ...] = (
        (Predicts, "predict", "Predict cases of your own"),
        (Screens, "screen", "Search a space of candidates"),
        (SamplesThermodynamics, "thermodynamics", "Sample order at many temperatures"),
    )
    commands = []
    for kind, verb, purpose in uses:
        if isinstance(domain, kind):
            more: tuple[str, ...] = ()
            if isinstance(domain, SuggestsArguments):
                schema = read_json(run / SCHEMA, dict[str, Any])
                more = domain.suggested_arguments(verb, domain.restore(schema, read_safetensors(run / STATISTICS)))
            commands.append((purpose, command(verb, *more, run=run)))
    return commands
