"""Decides when the blocks of a model are compiled: at once, when the time left pays for it, or never."""

from __future__ import annotations

from torch import nn

from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.models.compiled import compile_blocks, has_compiler
from sciml.training.config import Compile

PAYS_AFTER = 300.0
"""Seconds that must be left of a training: blocks take 10 to 30 s to compile, and save a tenth to a fifth of a step."""
WATCHED = 5
"""Steps by which the time left is estimated; the first is not counted."""


class Compilation:
    """Compiles the blocks of a model in the course of its training.

    Args:
        choice: ``true`` compiles at once, ``auto`` where enough of the training is left, ``false`` never.
        model: of this rank.
        is_differentiated_twice: whether the loss is made of gradients, through which compiled code cannot go.

    Raises:
        ConfigError: where ``true`` is not possible.
    """

    def __init__(self, choice: Compile, model: nn.Module, mesh: Mesh, *, is_differentiated_twice: bool) -> None:
        self.model, self.mesh = model, mesh
        self._seconds: list[float] = []
        obstacle = None
        if is_differentiated_twice:
            obstacle = "a loss that is made of gradients cannot go through compiled blocks"
        elif choice is not False and not has_compiler(mesh.device):
            obstacle = f"torch finds no compiler for {mesh.device.type} here (a CPU needs g++ or clang++)"
        if choice is True:
            if obstacle is None and not compile_blocks(model):
                obstacle = f"{type(model).__name__} has no transformer blocks to compile"
            if obstacle is not None:
                raise ConfigError(obstacle, key="trainer.compile", hint="use false, or auto")
        self.waits = choice == "auto" and obstacle is None

    def after_step(self, seconds: float, steps_left: int) -> bool:
        """Takes note of a step and compiles, where that is still to be decided and now pays.

        All ranks decide alike, by the first one's clock.

        Returns:
            Whether it was decided now to compile.
        """
        if not self.waits:
            return False
        self._seconds.append(seconds)
        if len(self._seconds) <= WATCHED:
            return False
        self.waits = False
        left = steps_left * sum(self._seconds[1:]) / WATCHED
        return bool(self.mesh.world.share(left > PAYS_AFTER)) and compile_blocks(self.model) > 0
