"""Tokens of a sample spread over ranks: over the token axis everywhere, over the matrix axis between cut matrices."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from sciml.distributed.axes import Role
from sciml.distributed.collectives import all_gather, all_reduce, all_to_all, gather_replicated, scatter
from sciml.distributed.mesh import Mesh

TOKENS = (Role.TOKEN, Role.MATRIX)
"""Roles whose ranks hold different tokens between the cut matrices."""


class TokenLayout:
    """Says how the tokens lie over a mesh: in order, an equal part for each token rank and, within it, for each matrix
    rank.

    Counts that the ranks do not divide are filled up with zeros at the end. Fill tokens pass through norms and
    matrices like all others and are cut off where tokens mix (attention) and at the end, so they change nothing.

    Attributes:
        count: tokens of a sample in the forward pass at hand, without the fill.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.multiple = mesh.size(*TOKENS)
        self.count = 0

    @property
    def fill(self) -> int:
        """Returns the number of zeros at the end."""
        return -self.count % self.multiple

    def scatter(
        self, x: Shaped[Tensor, "..."], dim: int, axes: tuple[Role, ...], partial: bool = False
    ) -> Shaped[Tensor, "..."]:
        """Returns this rank's tokens of all, which are replicated; it begins a forward pass.

        Args:
            partial: whether the gradient is that of this rank's tokens alone; else all ranks' are gathered.
        """
        self.count = x.shape[dim]
        x = self._filled(x, dim)
        for axis in axes:
            if partial:
                x = x.chunk(self.mesh.size(axis), dim)[self.mesh.rank(axis)]
            else:
                x = scatter(x, dim, self.mesh.group(axis))
        return x

    def all_gather(self, x: Shaped[Tensor, "..."], dim: int) -> Shaped[Tensor, "..."]:
        """Returns all tokens, from each rank's, for ranks that compute different things with them."""
        for axis in reversed(TOKENS):
            x = all_gather(x, dim, self.mesh.group(axis))
        return x.narrow(dim, 0, self.count)

    def all_reduce(self, x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Returns the sum over ranks with different tokens, for every rank to go on with the same."""
        for axis in reversed(TOKENS):
            x = all_reduce(x, self.mesh.group(axis))
        return x

    def gather_replicated(
        self, x: Shaped[Tensor, "..."], dim: int, axes: tuple[Role, ...] = TOKENS
    ) -> Shaped[Tensor, "..."]:
        """Returns all tokens, from each rank's, cut over some axes, for every rank to go on with the same."""
        for axis in reversed(axes):
            x = gather_replicated(x, dim, self.mesh.group(axis))
        return x.narrow(dim, 0, self.count)

    def to_heads(
        self, x: Float[Tensor, "batch own_token head channel"]
    ) -> Float[Tensor, "batch token own_head channel"]:
        """Turns some tokens with all heads of a matrix rank into all tokens with some of those heads, without the fill.

        Args:
            x: (batch, token, head, channel).
        """
        return all_to_all(x, 2, 1, self.mesh.group(Role.TOKEN)).narrow(1, 0, self.count)

    def to_tokens(
        self, x: Float[Tensor, "batch token own_head channel"]
    ) -> Float[Tensor, "batch own_token head channel"]:
        """Inverts :meth:`to_heads`."""
        return all_to_all(self._filled(x, 1), 1, 2, self.mesh.group(Role.TOKEN))

    def _filled(self, x: Shaped[Tensor, "..."], dim: int) -> Shaped[Tensor, "..."]:
        if not self.fill:
            return x
        return F.pad(x, [0, 0] * (x.ndim - 1 - dim) + [0, self.fill])
