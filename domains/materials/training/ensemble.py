"""Several models of one shape, each drawn and trained on its own: where they differ, nobody knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from domains.materials.training.potential import MaterialsGNN
from sciml.nn.initialization import initialize
from sciml.parallel.plan import ShardingPlan

STD = "_std"
"""Ends the name of a spread."""


class MaterialsEnsemble(nn.Module):
    """Trains a deep ensemble as one model; its members differ by their first weights alone.

    Source: Lakshminarayanan et al. (2017), https://doi.org/10.48550/arXiv.1612.01474.

    Args:
        members: models of one shape.
    """

    plan: ClassVar[ShardingPlan] = MaterialsGNN.plan.within("members.*")

    def __init__(self, members: Sequence[MaterialsGNN]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        initialize(self, torch.initial_seed())

    def variable_rows(self) -> dict[str, tuple[str, ...]]:
        """Returns those of each member; see :meth:`MaterialsGNN.variable_rows`."""
        return {
            f"members.{number}.{name}": rows
            for number, member in enumerate(self.members)
            for name, rows in member.variable_rows().items()  # type: ignore[operator]
        }

    def likest(self, variable: str, known: Sequence[str]) -> str:
        """Returns the known element that another is most like; see :meth:`MaterialsGNN.likest`."""
        return MaterialsGNN.likest(variable, known)

    def forward(self, *graph: Any, **options: Any) -> list[dict[str, Tensor]]:
        """Returns what each member predicts for the same structures."""
        return [member(*graph, **options) for member in self.members]


def combined(members: Sequence[Mapping[str, Tensor]], calibration: Mapping[str, float]) -> dict[str, Tensor]:
    """Returns the mean of what members predict, and the standard deviation of each value.

    Members' own variances and the variance among members add up, as of a mixture of Gaussians.

    Args:
        members: each with the same names; ``<name>_std`` is a member's own spread.
        calibration: factors of spreads, by name of the value.
    """
    values: dict[str, Tensor] = {}
    for name in members[0]:
        if name.endswith(STD):
            continue
        stacked = torch.stack([member[name] for member in members])
        values[name] = stacked.mean(0)
        own = [member[f"{name}{STD}"].square() for member in members if f"{name}{STD}" in member]
        among = stacked.var(0) if len(members) > 1 else torch.zeros_like(values[name])
        if own or len(members) > 1:
            variance = among + torch.stack(own).mean(0) if own else among
            values[f"{name}{STD}"] = calibration.get(name, 1.0) * variance.sqrt()
    return values
