"""Evaluation of a trained run, perhaps on other data than its own."""

from __future__ import annotations

from sciml.app.run_on_model import RunChoice
from sciml.core.config import build
from sciml.core.result import CommandResult
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import join
from sciml.parallel.config import ParallelConfig
from sciml.report.run_report import report_evaluation
from sciml.run.compose import Composition
from sciml.run.scoring import score_run

PARALLEL = "parallel."


def run(composition: Composition) -> CommandResult | None:
    """Scores and reports; keys of the run itself that are typed change how it is scored."""
    choice = build(RunChoice, composition.config)
    folder = choice.folder()
    overrides = {key: value for key, value in composition.overrides.items() if not key.startswith(PARALLEL)}
    degrees = {key.removeprefix(PARALLEL): v for key, v in composition.overrides.items() if key not in overrides}
    parallel = build(ParallelConfig, degrees, prefix="parallel")
    world = join(choice.device)
    mesh = Mesh(world, parallel.degrees(world.size))
    evaluation = score_run(
        folder, mesh, parallel, checkpoint=str(choice.checkpoint), overrides=overrides, must_score=True
    )
    return report_evaluation(evaluation) if evaluation is not None else None
