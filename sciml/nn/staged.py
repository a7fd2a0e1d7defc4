"""A forward pass in parts (embedding, blocks, head), so that it can be cut between its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from sciml.nn.topology import Topology

Activations = tuple[Tensor, ...]
"""Tensors that pass from block to block and from stage to stage: first the tokens (or nodes), then whatever else
depends on parameters and is needed further on."""


class Place(nn.Identity):
    """Marks where a sharding plan lets tensors cross ranks; on one device nothing happens."""


class SharedGrid(nn.Module):
    """Marks where a sharding plan lets ranks share the rows of a grid; on one device nothing happens."""

    share: Callable[[Topology, int], Topology] | None = None

    def forward(self, topology: Topology, count: int) -> Topology:
        """Returns a topology by which a rank works on its own rows.

        Args:
            count: rows that are left whole: of the coarsest cells among which there are convolutions.
        """
        return topology if self.share is None else self.share(topology, count)


@dataclass(frozen=True)
class ForwardPass:
    """Holds a forward pass over given inputs, ready to be run at once or stage by stage.

    Attributes:
        embed: computes the activations that enter the first block.
        head: turns the activations behind the last block into the model's output.
        context: further arguments of every block; it carries no gradient, and every stage computes its own.
        carried: how many of the last activations the blocks do not see; they are for the head.
    """

    embed: Callable[[], Activations]
    head: Callable[..., Tensor]
    context: tuple[Any, ...] = ()
    carried: int = 0

    def run_blocks(self, blocks: Iterable[nn.Module], activations: Activations) -> Activations:
        """Returns the activations behind some blocks; each block changes the first tensor and sees others."""
        first, *others = activations
        seen = others[: len(others) - self.carried]
        for block in blocks:
            first = block(first, *seen, *self.context)
        return (first, *others)

    def run(self, blocks: Iterable[nn.Module]) -> Float[Tensor, "..."]:
        """Returns the model's output, all at once."""
        return self.head(*self.run_blocks(blocks, self.embed()))


class Staged(Protocol):
    """Describes a model that can be cut into pipeline stages: ``forward(...)`` is ``forward_pass(...).run(blocks)``."""

    def forward_pass(self, *args: Any, **kwargs: Any) -> ForwardPass: ...
