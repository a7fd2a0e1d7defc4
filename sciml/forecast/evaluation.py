"""Scoring a model beside its baselines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from sciml.distributed.mesh import Mesh
from sciml.domain.protocol import MetricSet, Predictor, Score, Task
from sciml.forecast.rollout import rollout


def score_model(task: Task, model: nn.Module, batches: Iterable[Any], mesh: Mesh) -> list[Score]:
    """Scores of a model over batches; each is rolled out as far as it has targets."""
    metrics = task.metrics()
    for batch in batches:
        for step_batch, prediction in rollout(task, model, batch.to(mesh.device)):
            metrics.update(prediction, step_batch)
    return _finish(metrics, mesh)


def score_baselines(
    task: Task, batches: Iterable[Any], mesh: Mesh, baselines: Mapping[str, Predictor]
) -> dict[str, list[Score]]:
    """Scores of each baseline on the batches and steps that a model is scored on."""
    metrics = {name: task.metrics() for name in baselines}
    for batch in batches:
        step_batch = batch.to(mesh.device)
        while step_batch is not None:
            for name, baseline in baselines.items():
                prediction = baseline(step_batch)
                metrics[name].update(prediction, step_batch)
            step_batch = task.advance(step_batch, prediction)
    return {name: _finish(metric, mesh) for name, metric in metrics.items()}


def _finish(metrics: MetricSet, mesh: Mesh) -> list[Score]:
    mesh.add(metrics.sums())
    return metrics.compute()


def mean_scores(repeats: Sequence[Sequence[Score]]) -> list[Score]:
    """Means of scores over repeats of the same predictor."""
    values: dict[tuple, list[float]] = {}
    for scores in repeats:
        for score in scores:
            values.setdefault(score.key, []).append(score.value)
    return [replace(score, value=sum(values[score.key]) / len(values[score.key])) for score in repeats[0]]


def score_table(scores: Sequence[Score], baselines: Mapping[str, Sequence[Score]]) -> list[dict[str, Any]]:
    """Rows of ``scores.json``: each score of the model with those of the baselines beside it."""
    others = {name: {score.key: score.value for score in rows} for name, rows in baselines.items()}
    return [
        {
            "variable": score.variable,
            "lead_time_h": score.lead_time_h,
            "metric": score.metric,
            "value": score.value,
            "unit": score.unit,
            "baseline": {name: table[score.key] for name, table in others.items() if score.key in table},
        }
        for score in scores
    ]


def mean_skill(table: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """For each baseline, 1 - (score / baseline's score), averaged over variables and lead times; 1 is perfect."""
    rows = [row for row in table if row["metric"] == metric]
    names = {name for row in rows for name in row["baseline"]}
    skill = {}
    for name in sorted(names):
        ratios = [row["value"] / row["baseline"][name] for row in rows if row["baseline"].get(name)]
        if ratios:
            skill[name] = 1 - sum(ratios) / len(ratios)
    return skill
