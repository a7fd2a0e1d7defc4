"""Trainings that tests start without a launcher."""

from __future__ import annotations

import torch

from sciml.distributed.world import World
from sciml.run.compose import Composition
from sciml.run.session import TrainingSession, find_run
from sciml.run.spec import RunSpec

ALONE = World(0, 1, torch.device("cpu"))


def start_session(composition: Composition, world: World = ALONE) -> TrainingSession:
    """Starts the training of a composed command line up to its first step, by default on the CPU of this process alone.

    Raises:
        ConfigError, DataError: as the command would.
    """
    start = find_run(composition, world)
    return TrainingSession.start(RunSpec.build(start.config), world, start.folder)
