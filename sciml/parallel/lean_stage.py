"""torch's pipeline stage, with room for what it receives only while that is needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.pipelining import PipelineStage


class LeanStage(PipelineStage):
    """Runs a stage whose memory does not grow with the micro-batches of a step.

    torch's own makes a tensor for what each micro-batch of a step will bring, there and back, before the first one
    comes. Here such a tensor is made when it is received and let go behind the backward pass; in between it stands
    for its shape.
    """

    def _prepare_forward_infra(self, *args: Any, **kwargs: Any) -> Any:
        with self._shapes_only():
            return super()._prepare_forward_infra(*args, **kwargs)

    def _prepare_backward_infra(self, *args: Any, **kwargs: Any) -> Any:
        with self._shapes_only():
            return super()._prepare_backward_infra(*args, **kwargs)

    @contextmanager
    def _shapes_only(self) -> Iterator[None]:
        device, self.device = self.device, torch.device("meta")
        try:
            yield
        finally:
            self.device = device

    def get_fwd_recv_ops(self, fwd_chunk_id: int) -> Any:
        _move(self.args_recv_info[fwd_chunk_id], self.device)
        return super().get_fwd_recv_ops(fwd_chunk_id)

    def get_bwd_recv_ops(self, bwd_chunk_id: int) -> Any:
        if self.has_backward and not self.is_last:
            _move(self.grad_recv_info[bwd_chunk_id], self.device)
        return super().get_bwd_recv_ops(bwd_chunk_id)

    def backward_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        done = super().backward_one_chunk(bwd_chunk_id, *args, **kwargs)
        for infos in (self.args_recv_info, self.grad_recv_info):
            _move(infos.get(bwd_chunk_id, ()), torch.device("meta"))
        return done


def _move(infos: Iterable[Any], device: torch.device) -> None:
    """Gives what is received a tensor on a device; of what a stage makes itself there is none."""
    for info in infos:
        if getattr(info, "buffer", None) is not None:
            info.buffer = torch.empty_like(info.buffer, device=device)
