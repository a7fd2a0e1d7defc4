"""Trainings that tests start in their own process."""

from __future__ import annotations

import torch

from sciml.distributed.world import World
from sciml.run.compose import Composition
from sciml.run.session import TrainingSession, find_run
from sciml.run.spec import RunSpec


def start_session(composition: Composition) -> TrainingSession:
    """Starts the training of a composed command line up to its first step, on the CPU of this process alone.

    Raises:
        ConfigError, DataError: as the command would.
    """
    world = World(0, 1, torch.device("cpu"))
    start = find_run(composition, world)
    return TrainingSession.start(RunSpec.build(start.config), world, start.folder)
