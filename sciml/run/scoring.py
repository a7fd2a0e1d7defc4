"""Scoring of a trained run on its test split: ``scores.json``, and what figures need beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from torch import nn

from sciml.core.errors import ConfigError
from sciml.core.files import atomic_file, check_writable, write_json
from sciml.core.progress import track
from sciml.data.loader import evaluation_batches
from sciml.data.source import SampleSource
from sciml.distributed.mesh import Mesh
from sciml.domain.optional import Calibrates, JudgesByCost
from sciml.domain.protocol import Splits
from sciml.domain.score import Score
from sciml.forecast.evaluation import add_up, mean_scores, score_baselines, score_model, score_table
from sciml.parallel.config import ParallelConfig
from sciml.run.costs import step_costs
from sciml.run.folder import RunFolder
from sciml.run.loaded import CALIBRATION, SCHEMA, LoadedRun, find_checkpoint, load_run
from sciml.run.reference_models import OWN, reference_runs

EXAMPLE = "example.safetensors"
COSTS = "costs.json"


@dataclass(frozen=True)
class Evaluation:
    """Holds a run that was scored.

    Attributes:
        run: the run, loaded as it was scored.
        path: the folder of its scores: the run's own, or one within it where other conditions than its own were asked.
        checkpoint: whose weights were scored.
        scores: rows of ``scores.json``.
    """

    run: LoadedRun
    path: Path
    checkpoint: Path
    scores: Sequence[dict[str, Any]]


def score_run(
    folder: RunFolder,
    mesh: Mesh,
    parallel: ParallelConfig | None = None,
    *,
    checkpoint: str = "best",
    overrides: Mapping[str, Any] | None = None,
    must_score: bool = False,
) -> Evaluation | None:
    """Scores a run's model on its test split, beside the baselines, and writes the scores.

    Args:
        overrides: values of the run's configuration to change, by dotted key; the scores then go to a folder of their
            own, within the run's.
        must_score: whether a test split without samples is refused; trainings may have none.

    Returns:
        The evaluation; None on other ranks than the first.

    Raises:
        UnwritableError: where the run's folder cannot be written, before anything is scored.
        ConfigError: where there is nothing to score and must be.
    """
    if mesh.is_main:
        check_writable(folder.results)
    run = load_run(folder, checkpoint=checkpoint, mesh=mesh, parallel=parallel, overrides=overrides)
    spec = run.spec
    if must_score and not len(run.splits.test):
        raise ConfigError(
            "the test split has no sample to score",
            key="data.splits",
            hint="hold some data out for it, or name other data, e.g. data.path=FILE",
        )
    # Reference models are scored on what the run is scored on; their models are their own.
    conditions = {key: v for key, v in (overrides or {}).items() if key.partition(".")[0] in ("data", "task")}

    replicas = Mesh(mesh.world, ParallelConfig().degrees(mesh.world.size))

    def load(reference: RunFolder) -> tuple[LoadedRun, Mesh]:
        # A model of another kind need not know how to be cut.
        is_same_kind = reference.record["config"]["model"]["kind"] == spec.model.kind
        ranks = mesh if is_same_kind else replicas
        shared = parallel if is_same_kind else None
        return load_run(reference, mesh=ranks, parallel=shared, overrides=conditions), ranks

    references = {
        name: [load(reference) for reference in runs] for name, runs in reference_runs(folder, spec.options).items()
    }
    batches = {"batch_size": spec.trainer.micro_batch(mesh.num_data_ranks), "seed": spec.seed}
    own = not overrides and not folder.is_exported
    if isinstance(run.task, Calibrates) and run.task.has_spread and own:
        calibrate(folder, run.task, run.model, run.splits, mesh, **batches)
    scores = score_test(run, mesh, references, **batches)
    # Ranks that compute one model together must all take part.
    example = spec.domain.example(run.task, run.model, run.splits)
    if not mesh.is_main:
        return None
    path = folder.path if own else folder.new_evaluation()
    save_scores(path, scores, example, run.splits.schema.to_dict())
    if isinstance(spec.domain, JudgesByCost) and mesh.world.size == 1 and len(run.splits.test):
        models = {OWN: run, **{name: loaded[0][0] for name, loaded in references.items()}}
        write_json(path / COSTS, step_costs(models, mesh, spec.domain.cost_rounds))
    return Evaluation(run, path, find_checkpoint(folder, checkpoint), scores)


def score_test(
    run: LoadedRun,
    mesh: Mesh,
    references: Mapping[str, Sequence[tuple[LoadedRun, Mesh]]],
    *,
    batch_size: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Scores on the whole test split; returns the rows of ``scores.json``.

    Args:
        references: reference models by name that are scored beside the baselines, each on a mesh of its own; of
            several the mean is taken.
    """

    def batches(source: SampleSource, description: str, mesh: Mesh = mesh) -> Any:
        rank = {"rank": mesh.data_rank, "num_ranks": mesh.num_data_ranks}
        total = -(-len(source) // mesh.num_data_ranks // batch_size)
        found = evaluation_batches(source, batch_size=batch_size, seed=seed, **rank)
        return track(found, description, total) if mesh.is_main else found

    def scores_of(one: LoadedRun, name: str, mesh: Mesh = mesh) -> list[Score]:
        return score_model(one.task, one.model, batches(one.splits.test, f"scoring {name}", mesh), mesh)

    scores = scores_of(run, "the model")
    test, task = run.splits.test, run.task
    baselines = score_baselines(task, batches(test, "scoring the baselines"), mesh, task.baselines())
    trained = {
        name: mean_scores([scores_of(one, name, ranks) for one, ranks in runs]) for name, runs in references.items()
    }
    return score_table(scores, {**baselines, **trained})


def calibrate(
    folder: RunFolder, task: Calibrates, model: nn.Module, splits: Splits, mesh: Mesh, **batches: int
) -> None:
    """Makes the spreads of a task's predictions right on the validation split, and keeps the factors with the run."""
    task.calibration = {}
    ranks = {"rank": mesh.data_rank, "num_ranks": mesh.num_data_ranks}
    found = evaluation_batches(task.calibration_source(splits), limit=task.calibration_samples, **ranks, **batches)
    calibrator = task.calibrator()
    add_up(calibrator, task, model, track(found, "setting spreads beside errors") if mesh.is_main else found, mesh)
    task.calibration = calibrator.factors()
    if mesh.is_main and task.calibration:
        write_json(folder.path / CALIBRATION, task.calibration)


def save_scores(
    path: Path, scores: Sequence[dict[str, Any]], example: Mapping[str, np.ndarray], schema: Mapping[str, Any]
) -> None:
    """Writes ``scores.json``, and beside it what figures need, so that they can be drawn without model and data."""
    write_json(path / "scores.json", list(scores))
    write_json(path / SCHEMA, schema)
    with atomic_file(path / EXAMPLE) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in example.items()}, temporary)
