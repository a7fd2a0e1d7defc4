"""Decides when the blocks of a model are compiled: at once, when the time left pays for it, or never."""

from __future__ import annotations

from sciml.core.compiler import can_compile
from sciml.core.errors import ConfigError
from sciml.domain.protocol import Task
from sciml.models.compiled import blocks_of, compile_blocks
from sciml.parallel.model import ParallelModel
from sciml.training.config import Compile
from sciml.training.engine import Engine

PAYS_AFTER = 300.0
"""Seconds that must be left of a training: blocks take 10 to 30 s to compile, and save a tenth to a fifth of a step."""
WATCHED = 5
"""Steps by which the time left is estimated; the first is not counted."""


def obstacle(model: ParallelModel, task: Task) -> str | None:
    """Says why a model's blocks cannot be compiled; None where they can."""
    device = model.mesh.device
    if task.needs_double_backward:
        return "a loss that is made of gradients cannot go through compiled blocks"
    if not blocks_of(model.module):
        return f"{type(model.module).__name__} has no transformer blocks to compile"
    if not can_compile(device):
        return f"torch finds no compiler for {device.type} here (a CPU needs g++ or clang++)"
    return None


def check_compile(choice: Compile, model: ParallelModel, task: Task, *, is_reference: bool = False) -> None:
    """Refuses to compile what cannot be compiled, before anything is written.

    Args:
        is_reference: whether it is trained beside a run, and so as it is where it cannot be compiled.

    Raises:
        ConfigError: saying why.
    """
    found = obstacle(model, task) if choice is True and not is_reference else None
    if found is not None:
        raise ConfigError(found, key="trainer.compile", hint="use false, or auto")


class Compilation:
    """Compiles the blocks of a model in the course of its training.

    Args:
        choice: ``true`` compiles at once, ``auto`` where enough of the training is left, ``false`` never. What cannot
            be compiled is left alone, as a reference model without blocks is beside a run that is compiled.
    """

    def __init__(self, choice: Compile, engine: Engine, task: Task) -> None:
        self.engine = engine
        self._seconds: list[float] = []
        possible = choice is not False and obstacle(engine.model, task) is None
        self.waits = choice == "auto" and possible
        if choice is True and possible:
            compile_blocks(engine.model.module)

    def after_step(self, seconds: float, steps_left: int) -> None:
        """Takes note of a step and compiles, where that is still to be decided and now pays.

        All ranks decide alike, by the first one's clock.
        """
        if not self.waits:
            return
        self._seconds.append(seconds)
        if len(self._seconds) <= WATCHED:
            return
        self.waits = False
        left = steps_left * sum(self._seconds[1:]) / WATCHED
        if self.engine.mesh.world.share(left > PAYS_AFTER):
            compile_blocks(self.engine.model.module)
