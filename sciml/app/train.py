"""Training, from a command line to a scored run with a report."""

from __future__ import annotations

from pathlib import Path

from sciml.app.auto_parallel import with_best_parallel
from sciml.core.command_line import command
from sciml.core.config import build
from sciml.core.result import CommandResult
from sciml.distributed.world import join
from sciml.report.run_report import report_evaluation
from sciml.run.budgets import with_steps
from sciml.run.compose import Composition
from sciml.run.reference_models import build_reference_models, train_reference_models
from sciml.run.scoring import score_run
from sciml.run.session import TrainingSession
from sciml.run.spare import waits_beside
from sciml.run.spec import RunSpec
from sciml.run.start import find_run
from sciml.training.config import TrainerConfig
from sciml.training.tracking import build_tracker


def run(composition: Composition) -> CommandResult | None:
    """Trains, scores and reports; on other ranks than the first there is no result."""
    if waits_beside(composition):
        return None
    trainer = build(TrainerConfig, composition.config["trainer"], prefix="trainer")
    world = join(trainer.device, trainer.timeout_s, key="trainer.device")
    start = find_run(composition, world)
    config = with_best_parallel(start.config, composition.overrides, world)
    spec = RunSpec.build(with_steps(config, composition.overrides, start.folder, world))
    reference_models = build_reference_models(spec)
    session = TrainingSession.start(spec, world, start.folder, note=start.note)
    folder, mesh = session.folder, session.trainer.mesh
    if session.fit() and train_reference_models(reference_models, folder, world):
        evaluation = score_run(folder, mesh, spec.parallel)
        result = report_evaluation(evaluation) if evaluation is not None else None
        if result is not None and (tracker := build_tracker(spec.tracking, folder.path)) is not None:
            tracker.scores(result.document["scores"], session.trainer.step)
            tracker.file(Path(result.document["report"]))
            tracker.close()
        start.note.remove()
        return result
    if not world.is_main:
        return None
    text = f"stopped at step {session.trainer.step}; go on with: {command('train', resume=folder.path)}"
    return CommandResult({"run": str(folder.path), "step": session.trainer.step, "finished": False}, text)
