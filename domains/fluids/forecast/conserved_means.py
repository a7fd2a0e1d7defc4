"""Keeps the means of variables that a flow conserves, as that of its density between closed sides."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.data.batch import FlowPart
from domains.fluids.data.datasets import MASS
from domains.fluids.data.schema import DataSet, FluidsSchema
from sciml.core.errors import ConfigError, nearest
from sciml.domain.optional import AUTO

CLOSED = {"periodic", "wall"}
"""Sides through which nothing leaves."""


def conserved_variables(conserve: Sequence[str], name: str, data_set: DataSet) -> tuple[str, ...]:
    """Returns those variables of a data set whose means steps must not change."""
    sides = {side for both in data_set.sides.values() for side in both}
    known = MASS if AUTO in conserve and sides <= CLOSED else ()
    return tuple(variable for variable in data_set.variables if variable in (*known, *conserve))


def check_conserved(conserve: Sequence[str], schema: FluidsSchema) -> None:
    """Refuses what flows cannot conserve.

    Raises:
        ConfigError: an unknown variable, or a domain that is open.
    """
    for variable in conserve:
        if variable == AUTO:
            continue
        if variable not in schema.channels:
            raise ConfigError(
                f"the data have no {variable!r}", key="task.conserve", hint=nearest(variable, schema.channels)
            )
        for name, data_set in schema.data_sets.items():
            sides = {side for both in data_set.sides.values() for side in both}
            if variable in data_set.variables and not sides <= CLOSED:
                raise ConfigError(
                    f"{name} is open at a side: what is in it may leave", key="task.conserve", hint="task.conserve=[]"
                )


def keep_means(
    increment: Float[Tensor, "batch variable z x"],
    variables: Sequence[str],
    conserved: Collection[str],
    part: FlowPart,
) -> Float[Tensor, "batch variable z x"]:
    """Takes the mean over the plane out of the increments of conserved variables.

    Cells of obstacles do not count, and samples into which something is blown keep their increments.

    Args:
        variables: of the increments, in order.
        conserved: those of them that the flow conserves.
        part: the states that the increments belong to.
    """
    if not conserved:
        return increment
    kept = torch.tensor([[one in conserved for one in variables]], device=increment.device)
    if part.steady is not None:
        kept = kept & part.steady
    weight = torch.ones_like(increment[:, :1]) if part.fluid is None else part.fluid.to(increment.dtype)
    mean = (increment * weight).sum((-2, -1), keepdim=True) / weight.sum((-2, -1), keepdim=True)
    return increment - mean * weight * kept[..., None, None]
