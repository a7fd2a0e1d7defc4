"""The model that corrects what a solver on a coarse grid makes of a flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from domains.fluids.amr.config import ENCODINGS
from domains.fluids.amr.forest import Forest
from domains.fluids.amr.indicator_inputs import CHANGE, IndicatorInputs
from domains.fluids.amr.indicators import LearnedIndicator
from domains.fluids.amr.positions import AXES
from domains.fluids.amr.refinement import grow_forest
from domains.fluids.data.boundary import Boundary
from domains.fluids.field_model import field_inputs
from domains.fluids.refine.config import RefineConfig
from domains.fluids.refine.forest_uvit import ForestUViT
from sciml.models.field_model import Variables
from sciml.nn.initialization import initialize
from sciml.nn.staged import ForwardPass
from sciml.parallel.plan import ShardingPlan, Style


class RefineModel(nn.Module):
    """Maps what the solver makes of a normalized state, and by how much it has changed it, to a correction.

    The task lets the solver make its step first. Tokens of the coarsest patches cover the plane, finer ones stand where
    the indicator says that the solver is wrong. An untrained model corrects nothing.

    Args:
        config: sizes and options.
        channels: names of all variables and constants.
        variables: those whose changes are given besides.
    """

    def __init__(self, config: RefineConfig, channels: Sequence[str], variables: Sequence[str]) -> None:
        super().__init__()
        self.config, self.channels = config, (*channels, *change_names(variables))
        self.variables = Variables(self.channels, tuple(variables) or tuple(channels), ENCODINGS, AXES)
        self.net = ForestUViT(config, self.variables)
        self.indicator = LearnedIndicator("residual") if config.indicator == "learned" else None
        initialize(self, torch.initial_seed())

    @property
    def plan(self) -> ShardingPlan:
        """Returns how the model can be cut over a mesh."""
        return ForestUViT.plan.within("net") | ShardingPlan({"indicator.*": Style.REPLICATE_PARTIAL_GRAD})

    def variable_rows(self) -> dict[str, tuple[str, ...]]:
        """Returns the parameters whose first dim is a block of rows for each variable, with the variables' names."""
        rows = {"net.stem.weight": self.variables.read}
        return rows | dict.fromkeys(("net.head.weight", "net.head.bias"), self.variables.predicted)

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "batch output z x"]:
        """Returns the correction; takes what :meth:`forward_pass` takes."""
        return self.forward_pass(*args, **kwargs).run(self.net.blocks)

    def forward_pass(
        self,
        fields: Float[Tensor, "batch channel z x"],
        channel_names: Sequence[str] | None,
        lead_time: Float[Tensor, "batch"],
        boundary: Boundary | Sequence[Boundary],
        *,
        cell_size: Float[Tensor, "batch"] | None = None,
        output_names: Sequence[str] | None = None,
        forest: Forest | None = None,
        before: Forest | None = None,
        **evidence: Any,
    ) -> ForwardPass:
        """Returns the way to a correction, in parts; see :meth:`AMRViT.forward_pass`.

        Args:
            fields: the normalized state behind the solver's step, and the normalized changes.
            evidence: what else tells where to refine: ``previous``, ``truth``, ``residual``.
        """
        names = tuple(channel_names or self.channels)
        seen = self.evidence(fields, names, boundary, **evidence)
        inputs = field_inputs(fields, names, lead_time, seen.boundaries, cell_size, output_names)
        return self.net.forest_pass(inputs, forest or self.forest(seen, before), seen.periodic)

    def evidence(
        self,
        fields: Float[Tensor, "batch channel z x"],
        channel_names: Sequence[str] | None,
        boundary: Boundary | Sequence[Boundary],
        previous: Float[Tensor, "batch channel z x"] | None = None,
        truth: Float[Tensor, "batch channel z x"] | None = None,
        residual: Float[Tensor, "batch variable z x"] | None = None,
    ) -> IndicatorInputs:
        """Collects what tells where to refine; arguments as in :meth:`forward_pass`."""
        boundaries = (boundary,) * len(fields) if isinstance(boundary, Boundary) else tuple(boundary)
        names = tuple(channel_names or self.channels)
        return IndicatorInputs(fields, names, boundaries, previous, truth, residual)

    def forest(self, evidence: IndicatorInputs, before: Forest | None = None) -> Forest:
        """Decides where to refine."""
        return grow_forest(self.config, evidence, self.indicator, before, trim=not self.training)


def change_names(variables: Sequence[str]) -> tuple[str, ...]:
    """Returns the channels of the solver's changes."""
    return tuple(f"{CHANGE}{name}" for name in variables)
