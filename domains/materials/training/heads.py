"""Reads a model's predictions off the states of atoms: one head for each target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.core.types import NonNegative, Positive
from sciml.nn.initialization import zeros


@dataclass(frozen=True)
class TargetConfig:
    """Describes one thing to learn.

    Attributes:
        kind: ``energy`` (of the structure, a sum over atoms, with forces and stress as its gradients), ``graph``
            (one value of a structure) or ``node`` (one of each atom).
        reduce: how a graph value comes of its atoms: ``mean`` (does not grow with the structure) or ``sum``.
        weight: of this target's error in the loss.
        late_weight: its weight late in the training, after ``task.late_from`` of the steps, e.g. ten times as much for
            an energy, whose error so shrinks at little cost in forces; None: as before.
        forces_weight, stress_weight: of an energy's gradients; 0 leaves them out.
        large_forces_from: in eV/A; an atom whose force is larger counts less, in proportion, so that a few atoms that
            collide do not outweigh all others; None: all count the same.
        gaussian: whether a variance is predicted beside the value, and its likelihood learned.
        branches: names of the data sets that it is learned from, each with a head of its own; empty takes all,
            through one head.
    """

    kind: Literal["energy", "graph", "node"] = "graph"
    reduce: Literal["mean", "sum"] = "mean"
    weight: Positive[float] = 1.0
    late_weight: Positive[float] | None = None
    forces_weight: NonNegative[float] = 1.0
    stress_weight: NonNegative[float] = 0.1
    large_forces_from: Positive[float] | None = None
    gaussian: bool = False
    branches: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.gaussian and self.kind == "energy":
            raise ConfigError(
                "an energy with forces has no variance of its own",
                key="task.targets.gaussian",
                hint="leave it out; graph and node targets may have one",
            )

    @property
    def width(self) -> int:
        """Returns how many numbers a head gives: the value, and the logarithm of its variance."""
        return 2 if self.gaussian else 1


class Head(nn.Module):
    """Applies a small network to the state of each atom; its output has a row for every branch.

    It starts at zero: an untrained model gives each target's mean.

    Args:
        num_channels: of an atom's state.
        config: the target.
        num_branches: heads side by side; each atom is read by that of its branch.
    """

    def __init__(self, num_channels: int, config: TargetConfig, num_branches: int = 1) -> None:
        super().__init__()
        self.config, self.num_branches = config, num_branches
        self.hidden = nn.ModuleList(nn.Linear(num_channels, num_channels) for _ in range(num_branches))
        self.out = nn.ModuleList(zeros(nn.Linear(num_channels, config.width)) for _ in range(num_branches))

    def forward(
        self,
        states: Float[Tensor, "atom channel"],
        branch: Int[Tensor, "atom"],
        graph_index: Int[Tensor, "atom"],
        num_graphs: int,
    ) -> tuple[Float[Tensor, "row width"], Float[Tensor, "atom width"]]:
        """Returns values of atoms, or of graphs, according to the target's kind; and those of atoms that they are made
        of.
        """
        rows = [out(F.silu(hidden(states))) for hidden, out in zip(self.hidden, self.out, strict=True)]
        if self.num_branches == 1:
            values = rows[0]
        else:
            values = torch.stack(rows)[branch, torch.arange(len(states), device=states.device)]
        if self.config.kind == "node":
            return values, values
        total = values.new_zeros(num_graphs, values.shape[1]).index_add(0, graph_index, values)
        if self.config.kind == "energy" or self.config.reduce == "sum":
            return total, values
        counts = torch.bincount(graph_index, minlength=num_graphs).clamp(min=1)
        return total / counts[:, None].to(total.dtype), values


def branch_rows(names: Sequence[str], known: Sequence[str], key: str) -> list[int]:
    """Returns the head of each known branch, for a target that is learned from some of them; -1 where it is not.

    Raises:
        ConfigError: where a name is no branch.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"{name!r} is no branch of the data", key=key, hint=", ".join(known))
    return [list(names).index(name) if name in names else -1 for name in known] if names else [0] * len(known)
