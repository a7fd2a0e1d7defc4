"""From a trained model to ``scores.json``, figures and ``report.html``: what train, evaluate and report share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from torch import nn

from sciml.app.run_folder import RunFolder
from sciml.app.trained_run import CALIBRATION
from sciml.core.errors import ConfigError
from sciml.core.files import atomic_file, write_json
from sciml.core.progress import track
from sciml.data.loader import evaluation_batches
from sciml.dist.mesh import Mesh
from sciml.domain.protocol import Calibrates, Domain, Predicts, RunResult, Screens, Splits, Task
from sciml.inference.evaluation import score_baselines, score_model, score_table
from sciml.report.html import next_commands, write_report


def score_test(
    task: Task, model: nn.Module, splits: Splits, mesh: Mesh, *, batch_size: int, seed: int
) -> list[dict[str, Any]]:
    """Rows of ``scores.json`` on the whole test split."""

    def batches(description: str) -> Any:
        rank = {"rank": mesh.data_rank, "num_ranks": mesh.num_data_ranks}
        total = -(-len(splits.test) // mesh.num_data_ranks // batch_size)
        found = evaluation_batches(splits.test, batch_size=batch_size, seed=seed, **rank)
        return track(found, description, total) if mesh.is_main else found

    scores = score_model(task, model, batches("scoring the model"), mesh)
    baselines = score_baselines(task, batches("scoring the baselines"), mesh, task.baselines())
    return score_table(scores, baselines)


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


EXAMPLE = "example.safetensors"
