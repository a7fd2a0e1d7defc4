"""What a step of a model costs: several models are measured in turn, so that other load disturbs them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from sciml.core.progress import track
from sciml.core.seeding import seed_step
from sciml.data.loader import ShuffledSampler, training_batches
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.domain.optional import FollowsTraining
from sciml.domain.protocol import Predictor, Splits, Task
from sciml.run.loaded import LoadedRun
from sciml.run.session import build_model, with_chosen_precision
from sciml.run.spec import RunSpec
from sciml.training.compilation import Compilation
from sciml.training.ema import WeightAverage
from sciml.training.engine_config import build_engine
from sciml.training.pace import seconds_of
from sciml.training.step_math import StepOutput

Key = TypeVar("Key", bound=Hashable)
Step = Callable[[int], Callable[[], Any]]
"""Takes the number of a round, prepares its step, and returns what is to be measured."""


def measure_in_turn(steps: Mapping[Key, Step], world: World, rounds: int) -> dict[Key, float]:
    """Measures the mean CPU seconds (on an accelerator seconds) of each step, without its fastest and slowest round.

    The steps take turns, round after round; a round before the first warms up. The seconds are those of this rank.
    """
    on_cpu = world.device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    times: dict[Key, list[float]] = {name: [] for name in steps}
    numbers = range(rounds + 1)
    for number in track(numbers, "measuring steps") if world.is_main else numbers:
        for name, prepare in steps.items():
            step = prepare(number)
            if not on_cpu:
                torch.accelerator.synchronize()
            start = clock()
            step()
            if not on_cpu:
                torch.accelerator.synchronize()
            if number:
                times[name].append(clock() - start)
    return {name: float(np.mean(sorted(seconds)[1:-1] or seconds)) for name, seconds in times.items()}


def inference_step(run: LoadedRun, mesh: Mesh, predict: Predictor | None = None) -> Step:
    """Returns the step of one sample by a run's model, or by a baseline of its task."""
    source = run.splits.test if len(run.splits.test) else run.splits.train

    def prepare(number: int) -> Callable[[], Any]:
        one = source.collate([source.sample(0, np.random.default_rng(number))]).to(mesh.device)
        if predict is not None:
            return lambda: torch.no_grad()(predict)(one)
        return lambda: torch.no_grad()(run.task.predict)(run.model, one)

    return prepare


def step_costs(runs: Mapping[str, LoadedRun], mesh: Mesh, rounds: int) -> dict[str, dict[str, float]]:
    """Returns what one step of a sample costs, of each model and of each baseline of the first one's task, measured in
    turn; and what each model's training has cost, as its log says.
    """
    first = next(iter(runs.values()))
    steps = {name: inference_step(run, mesh) for name, run in runs.items()}
    for baseline, predict in first.task.baselines().items():
        steps[baseline.name] = inference_step(first, mesh, predict)
    costs = {name: {"step_s": seconds} for name, seconds in measure_in_turn(steps, mesh.world, rounds).items()}
    for name, run in runs.items():
        seconds = seconds_of(run.folder.history(), run.spec.trainer.global_batch_size)
        if seconds is not None:
            costs[name]["training_s"] = seconds
    return costs


def training_step(spec: RunSpec, task: Task, splits: Splits, mesh: Mesh, rounds: int) -> Step:
    """Builds a new model and returns its training step, without loading the batch: forward, backward, update and
    average, in the precision and with the compiled blocks of its training.

    Args:
        task: on the mesh's device.
        rounds: how often it is measured.
    """
    spec = with_chosen_precision(spec, task, mesh.world)
    trainer = spec.trainer
    model = build_model(spec, splits, task, None, mesh)
    engine = build_engine(spec.engine, model, spec.optim, trainer, task)
    Compilation(trainer.compile, engine, task)
    average = WeightAverage(engine.weights(), spec.optim.ema_decay) if spec.optim.ema_decay else None
    share, micro_batch = trainer.global_batch_size // mesh.num_data_ranks, trainer.micro_batch(mesh.num_data_ranks)
    batches = training_batches(
        splits.train,
        ShuffledSampler(len(splits.train), trainer.global_batch_size, spec.seed),
        start_step=0,
        stop_step=rounds + 1,
        micro_batch_size=micro_batch,
        rank=mesh.data_rank,
        num_ranks=mesh.num_data_ranks,
    )

    def prepare(number: int) -> Callable[[], Any]:
        micro_batches = [next(batches).to(mesh.device) for _ in range(share // micro_batch)]
        seed_step(spec.seed, number, mesh.world.rank, shared=(mesh.data_rank,))
        if isinstance(task, FollowsTraining):  # rounds are spread evenly over the training
            task.at_step(max(0, 2 * number - 1), 2 * rounds)

        def step() -> StepOutput:
            # At a learning rate of 0 an update costs what it always costs, and nothing can diverge.
            output = engine.train_step(task, micro_batches, lr=0.0)
            if average is not None:
                average.update(engine.weights(), number)
            return output

        return step

    return prepare
