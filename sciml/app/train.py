"""Training, from a configuration to a scored run with a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.app.auto_parallel import with_best_parallel
from sciml.core.config import build
from sciml.core.result import CommandResult
from sciml.distributed.world import join
from sciml.report.run_report import report_evaluation
from sciml.run.reference_models import check_companions, train_companions
from sciml.run.scoring import score_run
from sciml.run.session import set_up
from sciml.training.config import TrainerConfig


def run(values: Mapping[str, Any]) -> CommandResult | None:
    """Trains, scores and reports; on other ranks than the first it has nothing to say."""
    config = build(TrainerConfig, values["trainer"], prefix="trainer")
    world = join(config.device, config.timeout_s)
    values = with_best_parallel(values, world)
    check_companions(values)
    training = set_up(values, world)
    mesh, folder = training.trainer.mesh, training.folder
    if training.fit() and train_companions(folder, mesh.world):
        evaluation = score_run(folder, mesh, training.experiment.parallel)
        result = report_evaluation(evaluation) if evaluation is not None else None
        training.job.finished()
        return result
    if not mesh.is_main:
        return None
    text = f"stopped at step {training.trainer.step}; go on with: python scripts/train.py resume={folder.path}"
    return CommandResult({"run": str(folder.path), "step": training.trainer.step, "finished": False}, text)
