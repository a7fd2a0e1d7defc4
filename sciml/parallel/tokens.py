"""Tokens of a sample spread over ranks: over the token axes everywhere, over the matrix axis between cut matrices."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from sciml.core.errors import ConfigError
from sciml.distributed.axes import RING, ULYSSES, Role
from sciml.distributed.collectives import all_gather, all_reduce, all_to_all, gather_replicated, scatter
from sciml.distributed.mesh import Mesh
from sciml.nn.position import Rotary
from sciml.parallel.ring import Ring, ring_attention

TOKENS = (Role.TOKEN, Role.MATRIX)
"""Roles whose ranks hold different tokens between the cut matrices."""


class TokenLayout:
    """Says how the tokens lie over a mesh: in order, an equal part for each token rank and, within it, for each matrix
    rank.

    Where there is a ring and tokens see only those before them (``causal``), the order is that of :mod:`ring
    <sciml.parallel.ring>`: each part of the ring has a piece from the front and one from the end.

    Counts that the ranks do not divide are filled up with zeros at the end. Fill tokens pass through norms and
    matrices like all others and are cut off where tokens mix (attention) and at the end, so they change nothing.

    Attributes:
        count: tokens of a sample in the forward pass at hand, without the fill.
    """

    def __init__(self, mesh: Mesh, *, causal: bool = False) -> None:
        self.mesh = mesh
        self.has_pieces = causal and self.has_ring
        self.multiple = mesh.size(*TOKENS) * (2 if self.has_pieces else 1)
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
        x = self._ordered(self._filled(x, dim), dim)
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
        return self._reordered(x, dim).narrow(dim, 0, self.count)

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
        return self._reordered(x, dim).narrow(dim, 0, self.count)

    def to_heads(
        self, x: Float[Tensor, "batch own_token head channel"]
    ) -> Float[Tensor, "batch token own_head channel"]:
        """Turns some tokens with all heads of a matrix rank into all tokens with some of those heads, without the fill;
        where there is a ring, into all tokens of this part of it, with their fill.

        Args:
            x: (batch, token, head, channel).
        """
        x = all_to_all(x, 2, 1, self.mesh.group(ULYSSES))
        return x if self.has_ring else x.narrow(1, 0, self.count)

    def to_tokens(
        self, x: Float[Tensor, "batch token own_head channel"]
    ) -> Float[Tensor, "batch own_token head channel"]:
        """Inverts :meth:`to_heads`."""
        return all_to_all(x if self.has_ring else self._filled(x, 1), 1, 2, self.mesh.group(ULYSSES))

    @property
    def has_ring(self) -> bool:
        """Says whether keys and values go around a ring of ranks."""
        return self.mesh.size(RING) > 1

    def own_rotary(self, rotary: Rotary | None) -> Rotary | None:
        """Returns the rotations of the tokens in this part of the ring, of those of all tokens."""
        if rotary is None:
            return None
        whole = (self._ordered(self._filled(x, x.ndim - 3), x.ndim - 3) for x in rotary)
        return Rotary(*(x.chunk(self.mesh.size(RING), -3)[self.mesh.rank(RING)] for x in whole))

    def mix_around(
        self,
        query: Float[Tensor, "batch token head channel"],
        key: Float[Tensor, "batch token key_head channel"],
        value: Float[Tensor, "batch token key_head channel"],
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "batch token head channel"]:
        """Returns mixtures of the values of all parts of a ring.

        Raises:
            ConfigError: where some of a sample's tokens are not to be seen.
        """
        if mask is not None:
            raise ConfigError(
                "samples with unequal numbers of tokens cannot go around a ring",
                key=f"parallel.{RING}",
                hint=f"use 1, or parallel.{ULYSSES}",
            )
        group = self.mesh.group(RING)
        assert group is not None
        size = query.shape[1] // 2 if self.has_pieces else query.shape[1]
        pieces = [min(max(0, self.count - place * size), size) for place in self._places()]
        if self.has_pieces:
            ring = Ring(group, tuple(map(sum, zip(pieces[::2], pieces[1::2], strict=True))), piece=size)
        else:
            ring = Ring(group, tuple(pieces))
        return ring_attention(query.to(value.dtype), key.to(value.dtype), value, ring)

    def _places(self) -> list[int]:
        """Returns the places of pieces in a sample, in the order in which the parts of the ring hold them."""
        size = self.mesh.size(RING)
        if not self.has_pieces:
            return list(range(size))
        return [place for rank in range(size) for place in (rank, 2 * size - 1 - rank)]

    def _ordered(self, x: Shaped[Tensor, "..."], dim: int) -> Shaped[Tensor, "..."]:
        """Returns tokens in the order in which ranks hold them, of tokens as they come."""
        if not self.has_pieces:
            return x
        pieces = x.chunk(2 * self.mesh.size(RING), dim)
        return torch.cat([pieces[place] for place in self._places()], dim)

    def _reordered(self, x: Shaped[Tensor, "..."], dim: int) -> Shaped[Tensor, "..."]:
        """Inverts :meth:`_ordered`."""
        if not self.has_pieces:
            return x
        pieces, places = x.chunk(2 * self.mesh.size(RING), dim), self._places()
        return torch.cat([pieces[places.index(place)] for place in range(len(places))], dim)

    def _filled(self, x: Shaped[Tensor, "..."], dim: int) -> Shaped[Tensor, "..."]:
        if not self.fill:
            return x
        return F.pad(x, [0, 0] * (x.ndim - 1 - dim) + [0, self.fill])
