"""Takes what checkpoints hold of a training (weights, optimizer, average) from it, and gives it back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Shaped
from torch import Tensor

from sciml.training.checkpoint import read_tensors, tensor_shapes
from sciml.training.checkpoint_files import Group, is_elsewhere
from sciml.training.ema import WeightAverage
from sciml.training.engine import Engine
from sciml.training.training_state import begun_anew


class SavedTraining:
    """Gives the tensors of a training to checkpoints, and takes them from there.

    Args:
        average: of the weights; None where none is kept.
        optimizer: its name.
    """

    def __init__(self, engine: Engine, average: WeightAverage | None, optimizer: str) -> None:
        self.engine, self.average, self.optimizer = engine, average, optimizer

    def tensors(self) -> dict[str, Tensor]:
        """Returns all of them as they go into a checkpoint, by name."""
        averages = self.average.averages if self.average is not None else {}
        return {**self.engine.state(), **{f"ema.{name}": self.engine.stored(name, v) for name, v in averages.items()}}

    def restore(self, path: Path, group: Group, optimizer: str | None) -> list[str]:
        """Takes over what a checkpoint has; the rest begins anew.

        Args:
            group: the processes that read it together.
            optimizer: the one whose tensors are in it; None is that of this training.

        Returns:
            What begins anew, in sentences.

        Raises:
            ConfigError: where its weights are those of another model.
        """
        template, before = self.tensors(), optimizer or self.optimizer
        stored = tensor_shapes(path, group)
        wanted = {name: tensor for name, tensor in template.items() if self._is_wanted(name, tensor, stored, before)}
        state = read_tensors(path, wanted, group)
        self.engine.load_state(state)
        if self.average is not None:
            weights = self.engine.weights()
            for name, value in self.average.averages.items():
                average = state.get(f"ema.{name}")
                value.copy_(weights[name] if average is None else self.engine.part(name, average))
        return begun_anew(set(template) - set(state), before, self.optimizer)

    def _is_wanted(
        self, name: str, tensor: Shaped[Tensor, "..."], stored: Mapping[str, tuple[int, ...]], before: str
    ) -> bool:
        if name.startswith("model."):
            return True
        return (name in stored or is_elsewhere(tensor)) and (before == self.optimizer or not name.startswith("optim."))
