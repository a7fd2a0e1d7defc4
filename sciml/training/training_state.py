"""Holds what a checkpoint keeps of a training: weights and optimizer tensors by the names of parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from sciml.parallel.data import local
from sciml.parallel.model import ParallelModel
from sciml.training.optimizer import OptimizerSpec, state_of


class TrainingState:
    """Holds weights and optimizer tensors that lie where the model's own parameters lie.

    Args:
        optimizer: of the model's parameters.
        spec: what there is to know of it.
    """

    def __init__(self, model: ParallelModel, optimizer: torch.optim.Optimizer, spec: OptimizerSpec) -> None:
        self.model, self.mesh, self.optimizer, self.spec = model, model.mesh, optimizer, spec

    def weights(self) -> dict[str, Tensor]:
        """Returns this rank's parts of the weights."""
        return {name: local(p.detach()) for name, p in self.model.named_parameters()}

    def stored(self, name: str, tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns a tensor like this rank's part of a parameter as it goes into a checkpoint."""
        return self.model.stored(name, tensor)

    def part(self, name: str, stored: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns this rank's part of what :meth:`stored` gave."""
        return local(stored)

    def moments(self) -> dict[str, Tensor]:
        """Returns the optimizer's tensors as they go into a checkpoint."""
        return {key: self.stored(name, value) for key, (name, value) in self._moments().items()}

    def load_moments(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the optimizer's tensors, as far as there are any."""
        for key, (_, value) in self._moments().items():
            if key in state:
                local(value).copy_(local(state[key]))

    def _moments(self) -> dict[str, tuple[str, Tensor]]:
        """Returns the optimizer's tensors by their names in a checkpoint, each with the name of its parameter."""
        moments: dict[str, tuple[str, Tensor]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            tensors = state_of(self.optimizer, parameter, self.spec.rule(self.model.placements[name]))
            moments |= {f"optim.{name}.{key}": (name, value) for key, value in tensors.items()}
        return moments


def begun_anew(missing: set[str], before: str, optimizer: str) -> list[str]:
    """Says what a resumed training begins anew, by the tensors that were not taken from its checkpoint."""
    parts = {name.partition(".")[0] for name in missing}
    moments = f"the optimizer's moments begin anew: {optimizer} takes over from {before}"
    if before == optimizer:
        moments = f"moments of {optimizer} that the checkpoint lacks begin anew"
    said = {
        "optim": moments,
        "ema": "the average of the weights begins from the weights, since the checkpoint has none",
        "scaler": "the loss scale of fp16 begins anew",
    }
    return [sentence for part, sentence in said.items() if part in parts]
