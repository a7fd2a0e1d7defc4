"""Scoring a trained run again, perhaps on other data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sciml.app.run_on_model import RunChoice
from sciml.core.config import build
from sciml.core.result import CommandResult
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import join
from sciml.parallel.config import ParallelConfig
from sciml.report.run_report import report_evaluation
from sciml.run.scoring import score_run


@dataclass(frozen=True)
class EvaluateConfig(RunChoice):
    """Keys of ``conf/evaluate.yaml``."""

    changes: dict[str, Any] = field(default_factory=dict)


def run(values: Mapping[str, Any]) -> CommandResult | None:
    """Scores and reports."""
    config = build(EvaluateConfig, values)
    folder = config.folder
    changes = dict(config.changes)
    parallel = build(ParallelConfig, changes.pop("parallel", {}), prefix="parallel")
    world = join(config.device)
    mesh = Mesh(world, parallel.degrees(world.size))
    evaluation = score_run(folder, mesh, parallel, checkpoint=str(config.checkpoint), changes=changes)
    return report_evaluation(evaluation) if evaluation is not None else None
