"""Attention whose keys and values go around a ring of ranks, each of which holds a part of a sample's tokens.

Every rank mixes what it holds into its own queries' results and passes it on meanwhile, so that no rank ever has more
keys than two parts and any number of ranks can share a sample, whatever the number of heads. In the backward pass
keys and values go around again, and their gradients with them.

Where tokens see only those before them, a rank holds one piece from the front and one from the end of a sample, so that
all have equally much to do.

Source: Liu et al. (2023), https://doi.org/10.48550/arXiv.2310.01889; Brandon et al. (2023),
https://doi.org/10.48550/arXiv.2311.09431, for shares that balance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from sciml.distributed.not_compiled import NotCompiled
from sciml.nn.attention_kernel import Mixture, attend, attend_backward
from sciml.nn.recompute import kept


class Seen(NamedTuple):
    """Says which queries see which keys, all of them or, with ``causal``, those up to each query's own."""

    queries: slice
    keys: slice
    causal: bool


@dataclass(frozen=True)
class Ring:
    """Describes the ranks of a ring.

    Attributes:
        group: the ranks.
        lengths: number of each rank's tokens; what a rank holds beyond is fill.
        piece: where tokens see themselves and those before them only, the number of tokens in a rank's piece from the
            front, behind which stands its piece from the end; else None.
    """

    group: dist.ProcessGroup
    lengths: tuple[int, ...]
    piece: int | None = None

    @property
    def rank(self) -> int:
        return self.group.rank()

    def seen(self, source: int) -> Seen | None:
        """Returns which of this rank's tokens see which of another's; None where none does.

        Pieces from the front come in the order of ranks, those from the end in the opposite order.
        """
        own, others = self.lengths[self.rank], self.lengths[source]
        seen = Seen(slice(0, own), slice(0, others), causal=False)
        if self.piece is not None and source == self.rank:
            seen = Seen(slice(0, own), slice(0, own), causal=True)
        elif self.piece is not None and source < self.rank:
            seen = Seen(slice(0, own), slice(0, min(self.piece, others)), causal=False)
        elif self.piece is not None:
            seen = Seen(slice(self.piece, own), slice(0, others), causal=False)
        return seen if all(part.start < part.stop for part in seen[:2]) else None

    def around(self, held: Shaped[Tensor, "*shape"]) -> Iterator[tuple[int, Shaped[Tensor, "*shape"]]]:
        """Yields what each rank holds with that rank's number; what comes next travels while one is at work."""
        size = len(self.lengths)
        for step in range(size):
            message = Message(held, self.group) if step < size - 1 else None
            yield (self.rank - step) % size, held
            if message is not None:
                held = message.received()


class Message:
    """Sends a tensor to the next rank of a ring, and receives another one like it from the rank before."""

    def __init__(self, tensor: Shaped[Tensor, "*shape"], group: dist.ProcessGroup) -> None:
        self._sent = tensor.contiguous()
        self._received = torch.empty_like(self._sent)
        rank, size = group.rank(), group.size()
        ahead, behind = (dist.get_global_rank(group, (rank + step) % size) for step in (1, -1))
        send = dist.P2POp(dist.isend, self._sent, ahead, group)
        receive = dist.P2POp(dist.irecv, self._received, behind, group)
        self._works = dist.batch_isend_irecv([send, receive])

    def received(self) -> Shaped[Tensor, "*shape"]:
        """Waits for what comes and returns it."""
        for work in self._works:
            work.wait()
        return self._received


def ring_attention(
    query: Float[Tensor, "batch token head channel"],
    key: Float[Tensor, "batch token key_head channel"],
    value: Float[Tensor, "batch token key_head channel"],
    ring: Ring,
) -> Float[Tensor, "batch token head channel"]:
    """Returns mixtures of all ranks' values for this rank's queries; of fill, zero.

    Consecutive heads of queries share a head of keys and values, where there are fewer of these: only these travel.
    It can be differentiated once.
    """
    return _attend(query, key, value, ring)


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Float[Tensor, "..."], key: Float[Tensor, "..."], value: Float[Tensor, "..."], ring: Ring
    ) -> Float[Tensor, "..."]:
        out, lse = kept(partial(_mixed, query, key, value, ring))
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.ring = ring
        return _filled(out.transpose(1, 2), query.shape[1])

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, *grads: Float[Tensor, "..."]
    ) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."], None]:
        query, key, value, out, lse = ctx.saved_tensors
        return *_gradients(grads[0], query, key, value, Mixture(out, lse), ctx.ring), None


_attend = NotCompiled(_RingAttention.apply)


def _mixed(
    query: Float[Tensor, "..."], key: Float[Tensor, "..."], value: Float[Tensor, "..."], ring: Ring
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Returns the mixtures (batch, head, token, channel) of this rank's own queries, and the logarithms of their
    sums.
    """
    own = _heads_first(query, ring.lengths[ring.rank])
    total: Mixture | None = None
    for source, held in ring.around(torch.stack([key, value])):
        if (seen := ring.seen(source)) is None:
            continue
        keys, values = (_repeated(_heads_first(x, seen.keys.stop), own) for x in held)
        part = attend(own[:, :, seen.queries], keys, values, causal=seen.causal)
        if total is None:  # the first are a rank's own, which all its queries see
            total = Mixture(part.out.to(part.lse.dtype), part.lse)
            continue
        for whole, new in zip(total, total.at(seen.queries).merged(part), strict=True):
            whole[:, :, seen.queries] = new
    if total is None:  # fill alone
        return own, own.new_zeros(own.shape[:-1])
    return total.out.to(value.dtype), total.lse


def _gradients(
    grad: Float[Tensor, "..."],
    query: Float[Tensor, "..."],
    key: Float[Tensor, "..."],
    value: Float[Tensor, "..."],
    mixture: Mixture,
    ring: Ring,
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Returns the gradients of this rank's queries, keys and values; those of the last two are summed on their way."""
    length = ring.lengths[ring.rank]
    own, grad = _heads_first(query, length), _heads_first(grad, length)
    wide = mixture.lse.dtype
    of_query = torch.zeros_like(own, dtype=wide)
    arriving: Message | None = None
    for source, held in ring.around(torch.stack([key, value])):
        of_held = torch.zeros_like(held, dtype=wide)
        if (seen := ring.seen(source)) is not None:
            keys, values = (_repeated(_heads_first(x, seen.keys.stop), own) for x in held)
            queries, grads = (x[:, :, seen.queries] for x in (own, grad))
            at = mixture.at(seen.queries)
            part, *others = attend_backward(grads, queries, keys, values, at, causal=seen.causal)
            of_query[:, :, seen.queries] += part
            for total, other in zip(of_held, others, strict=True):
                shared = other.to(wide).unflatten(1, (key.shape[2], -1)).sum(2)
                total[:, seen.keys] = shared.transpose(1, 2)
        if arriving is not None:
            of_held += arriving.received()
        arriving = Message(of_held, ring.group)
    assert arriving is not None
    of_key, of_value = arriving.received().to(key.dtype)
    return _filled(of_query.to(query.dtype).transpose(1, 2), query.shape[1]), of_key, of_value


def _heads_first(x: Float[Tensor, "..."], length: int) -> Float[Tensor, "..."]:
    """Returns the first tokens as (batch, head, token, channel)."""
    return x[:, :length].transpose(1, 2)


def _repeated(x: Float[Tensor, "..."], like: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Returns heads of keys or values as often as there are heads of queries."""
    times = like.shape[1] // x.shape[1]
    return x if times == 1 else x.repeat_interleave(times, dim=1)


def _filled(x: Float[Tensor, "..."], length: int) -> Float[Tensor, "..."]:
    """Returns tokens (batch, token, head, channel) filled up with zeros."""
    return F.pad(x, (0, 0, 0, 0, 0, length - x.shape[1])) if x.shape[1] < length else x.contiguous()
