"""A forward pass in parts, so that it can be cut between its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

Flow = tuple[Tensor, ...]


@dataclass(frozen=True)
class ForwardPass:
    """A forward pass over given inputs, ready to be run at once or stage by stage.

    Attributes:
        begin: computes what flows through the blocks: first the tokens (or nodes), then whatever else depends on
            parameters and is needed further on.
        context: what every block is given besides; it holds no gradient, and every stage computes its own.
        end: from the flow behind the last block to the model's output.
    """

    begin: Callable[[], Flow]
    end: Callable[..., Tensor]
    context: tuple[Any, ...] = ()

    def through(self, blocks: Iterable[nn.Module], flow: Flow) -> Flow:
        """The flow behind some blocks; each changes its first tensor and sees the others."""
        first, *others = flow
        for block in blocks:
            first = block(first, *others, *self.context)
        return (first, *others)

    def run(self, blocks: Iterable[nn.Module]) -> Tensor:
        """The model's output, all at once."""
        return self.end(*self.through(blocks, self.begin()))


class Staged(Protocol):
    """A model that can be cut into pipeline stages: ``forward(...)`` is ``forward_pass(...).run(blocks)``."""

    def forward_pass(self, *args: Any, **kwargs: Any) -> ForwardPass: ...
