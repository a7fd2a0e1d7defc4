"""Validates a training: the loss on its validation samples, and the skill of forecasts against baselines."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from sciml.data.loader import evaluation_batches
from sciml.data.source import SampleSource
from sciml.domain.optional import FollowsTraining
from sciml.domain.protocol import Task
from sciml.domain.score import Score
from sciml.forecast.evaluation import mean_skill, score_baselines, score_model, score_table
from sciml.training.config import TrainerConfig
from sciml.training.ema import WeightAverage
from sciml.training.engine import Engine


class Validation:
    """Validates a training at any step, with the averaged weights where an average is kept.

    Args:
        source: the validation samples.
        average: of the weights.
        seed: of all that is drawn.
    """

    def __init__(
        self,
        config: TrainerConfig,
        engine: Engine,
        task: Task,
        source: SampleSource,
        average: WeightAverage | None,
        seed: int,
    ) -> None:
        self.config, self.engine, self.task, self.source = config, engine, task, source
        self.average, self.seed, self.mesh = average, seed, engine.mesh
        self._baseline_scores: dict[str, list[Score]] | None = None

    def run(self) -> dict[str, float]:
        """Returns the loss on the validation samples, and the skill against each baseline."""
        if len(self.source) == 0:
            return {}
        if isinstance(self.task, FollowsTraining):
            self.task.at_step(None, self.config.max_steps)
        with self.weights() as model:
            weight, total = 0.0, torch.zeros((), dtype=self.mesh.world.wide, device=self.mesh.device)
            for batch in self._batches():
                output = self.task.loss(model, batch.to(self.mesh.device))
                total += output.loss.to(total) * output.weight
                weight += output.weight
            scores = score_model(self.task, model, self._batches(), self.mesh)
        sums = torch.stack([total, torch.full_like(total, weight)])
        self.mesh.add([sums])
        if self._baseline_scores is None:
            baselines = self.task.baselines()
            self._baseline_scores = score_baselines(self.task, self._batches(), self.mesh, baselines)
        return {"loss": (sums[0] / sums[1]).item(), **mean_skill(score_table(scores, self._baseline_scores))}

    @contextmanager
    def weights(self):
        """Gives the model in evaluation mode, with the averaged weights where an average is kept."""
        with ExitStack() as stack:
            if self.average is not None:
                stack.enter_context(self.average.applied(self.engine.weights()))
            yield stack.enter_context(self.engine.evaluation())

    def _batches(self) -> Any:
        return evaluation_batches(
            self.source,
            batch_size=self.config.micro_batch(self.mesh.num_data_ranks),
            seed=self.seed,
            rank=self.mesh.data_rank,
            num_ranks=self.mesh.num_data_ranks,
            limit=self.config.valid_samples,
        )
