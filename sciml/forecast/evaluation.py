"""Scoring a model beside its baselines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from sciml.distributed.mesh import Mesh
from sciml.domain.optional import Calibrator
from sciml.domain.protocol import MetricSet, Predictor, Task
from sciml.domain.score import Baseline, Metric, Score
from sciml.forecast.rollout import rollout

SKILL_PREFIX = "skill_against_"
"""Begins the names of skills in logs, before that of the baseline."""


def score_model(task: Task, model: nn.Module, batches: Iterable[Any], mesh: Mesh) -> list[Score]:
    """Returns scores of a model over batches; each is rolled out as far as it has targets."""
    metrics = task.metrics()
    add_up(metrics, task, model, batches, mesh)
    return metrics.compute()


def add_up(sums: MetricSet | Calibrator, task: Task, model: nn.Module, batches: Iterable[Any], mesh: Mesh) -> None:
    """Adds up what a model predicts on batches, over all ranks; each is rolled out as far as it has targets."""
    for batch in batches:
        for step_batch, prediction in rollout(task, model, batch.to(mesh.device)):
            sums.update(prediction, step_batch)
    mesh.add(sums.sums())


def score_baselines(
    task: Task, batches: Iterable[Any], mesh: Mesh, baselines: Mapping[Baseline, Predictor]
) -> dict[str, list[Score]]:
    """Returns scores of each baseline on the batches and steps that a model is scored on; each goes on from its own
    predictions.
    """
    metrics = {baseline: task.metrics() for baseline in baselines}
    for batch in batches:
        start = batch.to(mesh.device)
        for baseline, predict in baselines.items():
            step_batch = start
            while step_batch is not None:
                prediction = predict(step_batch)
                metrics[baseline].update(prediction, step_batch)
                step_batch = task.advance(step_batch, prediction)
    for metric in metrics.values():
        mesh.add(metric.sums())
    return {baseline.name: metric.compute() for baseline, metric in metrics.items()}


def mean_scores(repeats: Sequence[Sequence[Score]]) -> list[Score]:
    """Returns means of scores over repeats of the same predictor; of several, no interval is known."""
    if len(repeats) == 1:
        return list(repeats[0])
    values: dict[tuple, list[float]] = {}
    for scores in repeats:
        for score in scores:
            values.setdefault(score.key, []).append(score.value)
    means = {key: sum(numbers) / len(numbers) for key, numbers in values.items()}
    return [replace(score, value=means[score.key], interval=None) for score in repeats[0]]


def score_table(scores: Sequence[Score], baselines: Mapping[str, Sequence[Score]]) -> list[dict[str, Any]]:
    """Returns rows of ``scores.json``: each score of the model with those of the baselines beside it."""
    others = {name: {score.key: score.value for score in rows} for name, rows in baselines.items()}
    return [
        {
            **score.to_row(),
            "baseline": {name: table[score.key] for name, table in others.items() if score.key in table},
        }
        for score in scores
    ]


def mean_skill(table: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the skill against each baseline in the first metric of a table; 1 is perfect, 0 as good as the baseline.

    It is the mean over variables and lead times of one minus the model's distance from the perfect score over the
    baseline's. Where the metric has no perfect score, there is none.
    """
    if not table:
        return {}
    metric = Metric.from_row(table[0])
    gains: dict[str, list[float]] = {}
    for row in table:
        if row["metric"] == metric.name:
            for name, reference in row["baseline"].items():
                gains.setdefault(name, []).append(metric.gain(row["value"], reference))
    known = {name: [gain for gain in shares if not math.isnan(gain)] for name, shares in sorted(gains.items())}
    return {f"{SKILL_PREFIX}{name}": sum(shares) / len(shares) for name, shares in known.items() if shares}
