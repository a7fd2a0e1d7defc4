"""Trainings that tests start without a launcher, and what they ask of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sciml.distributed.world import World
from sciml.domain.protocol import Prediction
from sciml.planning.cluster_here import TERA
from sciml.run.compose import Composition, compose
from sciml.run.folder import RunFolder
from sciml.run.scoring import score_run
from sciml.run.session import TrainingSession
from sciml.run.spec import RunSpec
from sciml.run.start import find_run

ALONE = World(0, 1, torch.device("cpu"))


def start_session(composition: Composition, world: World = ALONE) -> TrainingSession:
    """Starts the training of a composed command line up to its first step, by default on the CPU of this process alone.

    Raises:
        ConfigError, DataError: as the command would.
    """
    start = find_run(composition, world)
    return TrainingSession.start(RunSpec.build(start.config), world, start.folder)


def logged_flops(folder: RunFolder) -> list[float]:
    """Returns the FLOPs of a sample that each logged step tells of."""
    rows = [row for row in folder.history() if row["split"] == "train"]
    return [row["tflops_per_device"] * TERA / row["samples_per_s_per_device"] for row in rows]


def train_on_ranks(world: World, arguments: list[str], config_dir: str | None, scored: bool) -> Path:
    """Trains on the ranks of a group, and scores where that is wanted; returns the run's folder."""
    training = start_session(compose("train", arguments, config_dir), world)
    training.fit()
    if scored:
        score_run(training.folder, training.trainer.mesh, training.spec.parallel)
        world.barrier()
    return training.folder.path


def fit_until(training: TrainingSession, step: int) -> None:
    """Trains up to a step and leaves as after a kill: with nothing but the checkpoints."""

    class StopError(Exception):
        pass

    class StopAt:
        def on_step(self, now: int, record: Any) -> None:
            if now > step:
                raise StopError

        def on_validation(self, now: int, record: Any) -> None: ...

        def close(self) -> None: ...

    with pytest.raises(StopError):
        training.trainer.fit([StopAt()])


def assert_equal(one: Prediction, other: Prediction) -> None:
    """Asserts that two predictions are the same to the bit."""
    for name, value in one.values.items():
        assert torch.equal(value, other.values[name]), name
