"""From a trained model to ``scores.json``, figures and ``report.html``: what train, evaluate and report share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from torch import nn

from sciml.core.duration import as_typed
from sciml.core.errors import ConfigError
from sciml.core.files import atomic_file, write_json
from sciml.core.progress import track
from sciml.core.result import CommandResult
from sciml.data.loader import evaluation_batches
from sciml.data.source import SampleSource
from sciml.distributed.mesh import Mesh
from sciml.domain.optional import Calibrates, Forecasts, Predicts, Screens
from sciml.domain.protocol import Domain, RunResult, Score, Splits
from sciml.forecast.evaluation import mean_scores, score_baselines, score_model, score_table
from sciml.parallel.config import ParallelConfig
from sciml.report.html import next_commands, write_report
from sciml.report.model_card import few_samples
from sciml.report.scores import headline, main_lead_time, score_lines
from sciml.run.folder import RunFolder
from sciml.run.loaded import CALIBRATION, TrainedRun, find_checkpoint, open_run
from sciml.run.reference_models import companion_runs

EXAMPLE = "example.safetensors"


def score_run(
    folder: RunFolder, mesh: Mesh, parallel: ParallelConfig | None = None, **opening: Any
) -> CommandResult | None:
    """Scores a run's best weights on its test split, draws the report and says where everything is.

    With changes to the run's configuration the scores go to a folder of their own, beside the run's.
    """
    opened = open_run(folder, mesh=mesh, parallel=parallel, **opening)
    config = opened.experiment
    # Companions are scored on what the run is scored on; their models are their own.
    conditions = {group: keys for group, keys in (opening.get("changes") or {}).items() if group in ("data", "task")}
    others = {
        name: [open_run(run, mesh=mesh, parallel=parallel, changes=conditions) for run in runs]
        for name, runs in companion_runs(folder).items()
    }
    batches = {"batch_size": config.trainer.micro_batch(mesh.num_data_ranks), "seed": config.seed}
    if isinstance(opened.task, Calibrates) and not opening.get("changes"):
        calibrate(folder, opened.task, opened.model, opened.splits, mesh, **batches)
    table = score_test(opened, mesh, others, **batches)
    # Ranks that compute one model together must all take part.
    example = config.domain.example(opened.task, opened.model, opened.splits)
    if not mesh.is_main:
        return None
    place = folder.new_evaluation() if opening.get("changes") else folder.path
    save_scores(place, table, example, opened.splits.schema.to_dict())
    report = draw_report(folder, config.domain, place)
    checkpoint = find_checkpoint(folder, opening.get("checkpoint", "best"))
    lines = [
        *few_samples(len(opened.splits.test)),
        headline(score_lines(table, opened.task.primary_metric, main_lead_time(table))),
        f"report      {report}",
        f"checkpoint  {checkpoint}",
        *_next_commands(config.domain, folder, main_lead_time(table)),
    ]
    document = {"run": str(folder.path), "report": str(report), "checkpoint": str(checkpoint), "scores": table}
    return CommandResult({**document, "finished": True}, "\n".join(lines))


def _next_commands(domain: Domain, folder: RunFolder, lead_hours: float | None) -> list[str]:
    commands = [*(command for _, command in uses(domain, folder.path)), f"python scripts/evaluate.py run={folder.path}"]
    if isinstance(domain, Forecasts) and lead_hours is not None:
        commands.insert(0, f"python scripts/forecast.py run={folder.path} lead_time={as_typed(lead_hours)}")
    return [f"{'next' if not n else '':<12}{command}" for n, command in enumerate(commands)]


def score_test(
    run: TrainedRun, mesh: Mesh, others: Mapping[str, Sequence[TrainedRun]], *, batch_size: int, seed: int
) -> list[dict[str, Any]]:
    """Rows of ``scores.json`` on the whole test split.

    Args:
        others: trained models by name that are scored beside the baselines; of several the mean is taken.
    """

    def batches(source: SampleSource, description: str) -> Any:
        rank = {"rank": mesh.data_rank, "num_ranks": mesh.num_data_ranks}
        total = -(-len(source) // mesh.num_data_ranks // batch_size)
        found = evaluation_batches(source, batch_size=batch_size, seed=seed, **rank)
        return track(found, description, total) if mesh.is_main else found

    def scores_of(one: TrainedRun, name: str) -> list[Score]:
        return score_model(one.task, one.model, batches(one.splits.test, f"scoring {name}"), mesh)

    scores = scores_of(run, "the model")
    test, task = run.splits.test, run.task
    baselines = score_baselines(task, batches(test, "scoring the baselines"), mesh, task.baselines())
    trained = {name: mean_scores([scores_of(one, name) for one in runs]) for name, runs in others.items()}
    return score_table(scores, {**baselines, **trained})


def calibrate(
    folder: RunFolder, task: Calibrates, model: nn.Module, splits: Splits, mesh: Mesh, **batches: int
) -> None:
    """Makes the spreads of a task's predictions right on the validation split, and keeps the factors with the run."""
    task.calibration = {}
    found = evaluation_batches(splits.valid, rank=mesh.data_rank, num_ranks=mesh.num_data_ranks, **batches)
    task.calibration = task.spread_factors(score_model(task, model, found, mesh))
    if mesh.is_main and task.calibration:
        write_json(folder.path / CALIBRATION, task.calibration)


def save_scores(
    place: Path, table: Sequence[dict[str, Any]], example: Mapping[str, np.ndarray], schema: Mapping[str, Any]
) -> None:
    """Writes ``scores.json``, and beside it what figures need, so that they can be drawn without model and data."""
    write_json(place / "scores.json", list(table))
    write_json(place / "schema.json", schema)
    with atomic_file(place / EXAMPLE) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in example.items()}, temporary)


def draw_report(folder: RunFolder, domain: Domain, place: Path | None = None) -> Path:
    """Draws the figures of a run from its files and assembles ``report.html``.

    Args:
        place: where the scores are and the report goes; the run's own folder, or one of an evaluation within it.

    Raises:
        ConfigError: where the run was never scored.
    """
    place = place or folder.path
    example = place / EXAMPLE
    if not example.exists():
        raise ConfigError(
            f"{folder.path} was never scored", key="run", hint=f"python scripts/evaluate.py run={folder.path}"
        )
    result = RunResult(
        directory=folder.path,
        record=folder.record,
        schema=json.loads((place / "schema.json").read_text()),
        scores=json.loads((place / "scores.json").read_text()),
        history=folder.history(),
        example=load_file(example),
    )
    figures = track(domain.figures(result), "drawing figures")
    commands = [*uses(domain, folder.path), *next_commands(result)]
    return write_report(result, figures, place / "report.html", commands=commands)


def uses(domain: Domain, run: Path) -> list[tuple[str, str]]:
    """What a domain's trained models can be used for, with the commands."""
    found = []
    if isinstance(domain, Predicts):
        found.append(("Predict cases of your own", f"python scripts/predict.py run={run} structures=FILE"))
    if isinstance(domain, Screens):
        found.append(("Search a space of candidates", f"python scripts/screen.py run={run}"))
    return found
