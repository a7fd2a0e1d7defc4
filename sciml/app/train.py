"""Training, from a configuration to a scored run with a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.app.auto import with_best_parallel
from sciml.app.cli import Outcome
from sciml.app.companions import check_companions, train_companions
from sciml.app.scoring import score_run
from sciml.app.training import set_up
from sciml.core.config import build
from sciml.dist.world import join
from sciml.training.config import TrainerConfig


def run(values: Mapping[str, Any]) -> Outcome | None:
    """Trains, scores and reports; on other ranks than the first it has nothing to say."""
    config = build(TrainerConfig, values["trainer"], prefix="trainer")
    world = join(config.device, config.timeout_s)
    values = with_best_parallel(values, world)
    check_companions(values)
    training = set_up(values, world)
    mesh, folder = training.trainer.mesh, training.folder
    if training.fit() and train_companions(folder, mesh.world):
        outcome = score_run(folder, mesh, training.experiment.parallel)
        training.job.finished()
        return outcome
    if not mesh.is_main:
        return None
    text = f"stopped at step {training.trainer.step}; go on with: python scripts/train.py resume={folder.path}"
    return Outcome({"run": str(folder.path), "step": training.trainer.step, "finished": False}, text)
