"""Inputs that a module gathers from all ranks of a group, of which each keeps its part for the backward pass.

Products need their whole input again for the gradients of their weights. It is then gathered a second time, which
costs a message and saves all parts but one. The message is sent while the module's backward pass computes what comes
before. Where a block is computed again anyway, so is its input.

Source: Korthikanti et al. (2022), https://doi.org/10.48550/arXiv.2205.05198, section 4.2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from sciml.distributed.collectives import Group, all_gather, start_all_gather
from sciml.distributed.not_compiled import NotCompiled
from sciml.nn.recompute import is_made_again


class Regather:
    """Gathers a module's first input before its forward pass, and lets the pass keep this rank's part of it alone.

    Args:
        dim: along which ranks hold parts.
        group: of ranks; None is this process alone.
    """

    def __init__(self, dim: int, group: Group) -> None:
        self.dim, self.group = dim, group
        self._open = ExitStack()
        # What is compiled ends here and goes on behind, so that it runs with the hooks as if it were not.
        self._enter, self._leave = NotCompiled(self._gather), NotCompiled(self._close)

    def attach(self, module: nn.Module) -> None:
        """Lets a module call this before and behind its forward pass, also where that fails."""
        module.register_forward_pre_hook(self._before)
        module.register_forward_hook(self._behind, always_call=True)

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        first, *others = args
        return (self._enter(first), *others)

    def _behind(self, module: nn.Module, args: Any, output: Any) -> None:
        self._leave()

    def _gather(self, x: Float[Tensor, "batch own_token feature"]) -> Float[Tensor, "batch token feature"]:
        """Returns all tokens; under autocast as narrow as the products that they go to make them, and not as norms
        give them.
        """
        if self.group is None:
            return x
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        whole = all_gather(x, dim=self.dim, group=self.group)
        if torch.is_grad_enabled() and not is_made_again():
            kept = _Kept(x.detach(), whole.untyped_storage(), self.dim, self.group)
            self._open.enter_context(torch.autograd.graph.saved_tensors_hooks(kept.pack, _unpack))
            self._open.callback(kept.close)
        return whole

    def _close(self) -> None:
        self._open.close()


class _Saved(NamedTuple):
    """Holds what a forward pass keeps of a tensor.

    Attributes:
        of: the input that was gathered for this pass.
        tensor: to be kept as it is; None where it lies in the memory of the gathered input.
        size, strides, offset: of the tensor in that memory.
    """

    of: _Kept
    tensor: Shaped[Tensor, "..."] | None
    size: torch.Size
    strides: tuple[int, ...]
    offset: int


class _Kept:
    """Holds a rank's part of one gathered input.

    Args:
        part: this rank's.
        storage: memory of the whole.
        dim: along which ranks hold parts.
        group: of ranks.
    """

    def __init__(
        self,
        part: Float[Tensor, "batch own_token feature"],
        storage: torch.UntypedStorage,
        dim: int,
        group: dist.ProcessGroup,
    ) -> None:
        self.gather = partial(start_all_gather, part, dim, group)
        self._storage: torch.UntypedStorage | None = storage
        self._coming: Callable[[], Tensor] | None = None
        self._whole: Float[Tensor, "batch token feature"] | None = None
        self._is_new = True
        self._readers = self._still_reading = 0

    def close(self) -> None:
        """Lets go of the whole's memory at the end of the forward pass."""
        self._storage = None

    def pack(self, tensor: Shaped[Tensor, "*shape"]) -> _Saved:
        """Returns what autograd is to keep of a tensor."""
        is_whole = tensor.untyped_storage() is self._storage
        self._readers += is_whole
        kept = None if is_whole else tensor
        return _Saved(self, kept, tensor.size(), tensor.stride(), int(tensor.storage_offset()))

    def start(self) -> None:
        """Starts to gather where the backward pass first needs anything: long before it needs the whole."""
        if self._is_new and self._readers:
            self._is_new, self._coming = False, self.gather()

    def read(self) -> Float[Tensor, "batch token feature"]:
        """Returns the whole, gathered once for all that read it.

        They are counted, since none of them holds it until the next one comes; all ranks count alike, so that their
        messages match. Where a backward pass is made in two parts, each gathers.
        """
        self.start()
        if self._whole is None:
            self._whole = (self._coming or self.gather())()
            self._coming, self._still_reading = None, self._readers
        whole = self._whole
        self._still_reading -= 1
        if not self._still_reading:
            self._whole = None
        return whole


def _unpack(saved: _Saved) -> Shaped[Tensor, "*shape"]:
    if saved.tensor is None:
        return saved.of.read().as_strided(saved.size, saved.strides, saved.offset)
    saved.of.start()
    return saved.tensor
