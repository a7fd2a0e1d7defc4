"""Any model from fields to fields as a flow model: a state in a plane to its normalized increment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.amr.config import ENCODINGS
from domains.fluids.amr.indicator_inputs import odd_winds
from domains.fluids.amr.positions import AXES
from domains.fluids.data.boundary import Boundary
from sciml.models.field_model import FieldInputs, Variables
from sciml.models.field_models import FieldConfig, FieldForecaster
from sciml.nn.staged import ForwardPass
from sciml.nn.topology import Planes, Side


class FlowFieldModel(FieldForecaster):
    """Maps a normalized state of a flow to its normalized increment, by any model from fields to fields.

    It is called as :class:`AMRViT` is, and has no use for what tells where to refine. An untrained model returns
    exactly zero, that is persistence.

    Args:
        config: of the model; its kind decides which.
        channels: names of all variables of all data sets that it is to serve; a batch may have any of them.
        changes: names of the channels with what the step that it corrects has changed, where there is one.

    Raises:
        ConfigError: where an option names something unknown.
    """

    def __init__(self, config: FieldConfig, channels: Sequence[str], changes: Sequence[str] = ()) -> None:
        super().__init__(config, Variables((*channels, *changes), tuple(channels), ENCODINGS, AXES))
        self.channels = (*channels, *changes)

    def forward_pass(
        self,
        fields: Float[Tensor, "batch channel z x"],
        channel_names: Sequence[str] | None,
        lead_time: Float[Tensor, "batch"],
        boundary: Boundary | Sequence[Boundary],
        *,
        cell_size: Float[Tensor, "batch"] | None = None,
        output_names: Sequence[str] | None = None,
        **unused: Any,
    ) -> ForwardPass:
        """Returns the way from a state to its normalized increment, in parts; see :meth:`AMRViT.forward_pass`."""
        samples = (boundary,) * len(fields) if isinstance(boundary, Boundary) else tuple(boundary)
        names = tuple(channel_names or self.channels)
        return self.net.forward_pass(field_inputs(fields, names, lead_time, samples, cell_size, output_names))


def field_inputs(
    fields: Float[Tensor, "batch channel z x"],
    names: tuple[str, ...],
    lead_time: Float[Tensor, "batch"],
    boundaries: Sequence[Boundary],
    cell_size: Float[Tensor, "batch"] | None = None,
    output_names: Sequence[str] | None = None,
) -> FieldInputs:
    """Returns a state of a flow as models from fields to fields are given it; arguments as in
    :meth:`FlowFieldModel.forward_pass`.
    """
    scalars = {"lead_time": lead_time}
    if cell_size is not None:
        scalars["cell_size"] = cell_size.log2()
    angles = cell_angles(boundaries, fields.shape[-2:], fields.device)
    outputs = tuple(output_names or names)
    return FieldInputs(fields, names, outputs, scalars, angles, Planes(tuple(boundaries)), odd_winds(names))


def cell_angles(
    boundaries: Sequence[Boundary], shape: Sequence[int], device: torch.device
) -> dict[str, Float[Tensor, "*batch z x"]]:
    """Returns the angles of all cells, in float64: from end to end 2 pi where an axis is periodic, and pi where not."""
    angles = {}
    for axis, name in enumerate(AXES):
        turns = [math.pi * (1 + (getattr(b, name)[0] is Side.PERIODIC)) / shape[axis] for b in boundaries]
        centers = torch.arange(shape[axis], dtype=torch.float64, device=device) + 0.5
        by_sample = torch.tensor(turns, dtype=torch.float64, device=device)[:, None] * centers
        along = by_sample[:, :, None] if axis == 0 else by_sample[:, None, :]
        angles[name] = along.expand(len(boundaries), *shape)
    return angles
