"""Data parallelism through torch: replicas (DDP), or weights, gradients and optimizer sharded over ranks (FSDP2).

FSDP2 takes seconds to import, and is imported where something is sharded. Its modules and tensors are known by what
they alone can do.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from sciml.distributed.axes import SAMPLES, Role
from sciml.distributed.mesh import Mesh


def shard_modules(
    blocks: Iterable[nn.Module],
    roots: Iterable[nn.Module],
    mesh: Mesh,
    zero: int,
    half: torch.dtype | None = None,
) -> None:
    """Shards parameters over ``shard``, block by block, and replicates them over ``dp``.

    Stages of ZeRO differ in what is whole between which moments. 3: a block's weights from just before to just
    after its forward and backward pass. 2: weights through the whole step. 1: gradients too, until the last
    micro-batch. Between steps everything is sharded.

    Blocks compute with weights of half precision under autocast; gathered so, they take half the bytes, and autocast
    has none to cast. Gradients are added in float32. What stands outside of blocks keeps float32: it is little, and its
    outputs are.

    Source: Rajbhandari et al. (2020), https://doi.org/10.48550/arXiv.1910.02054.

    Args:
        half: precision in which the weights of blocks are gathered; None keeps their own.
    """
    if mesh.size(Role.SHARD) == 1:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    axes = mesh.torch_mesh(*SAMPLES)
    blocks = list(blocks)
    policy = MixedPrecisionPolicy()
    if half is not None:
        # The residual stream, positions and conditions are left as they come.
        policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        # The backward pass begins with the last block: it would be let go only to be gathered again.
        free = zero == 3 and block is not blocks[-1]
        fully_shard(block, mesh=axes, reshard_after_forward=free, mp_policy=policy)
    for root in roots:
        fully_shard(root, mesh=axes, reshard_after_forward=False)


def sync_gradients(roots: Iterable[nn.Module], sync: bool) -> None:
    """Sets whether the next backward pass reduces gradients over ranks, or only adds them up on each."""
    for root in roots:
        if hasattr(root, "set_requires_gradient_sync"):
            root.set_requires_gradient_sync(sync)  # type: ignore[operator]


def keep_whole(roots: Iterable[nn.Module], keep: bool) -> None:
    """Sets whether weights stay whole behind a backward pass: needed where a loss differentiates through one."""
    for root in roots:
        if hasattr(root, "set_reshard_after_backward"):
            root.set_reshard_after_backward(not keep)  # type: ignore[operator]


def reshard(roots: Iterable[nn.Module]) -> None:
    """Lets go of gathered weights, which do not notice when their shards are changed."""
    for root in roots:
        for module in root.modules():
            if hasattr(module, "reshard"):
                module.reshard()  # type: ignore[operator]


def local(tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Returns this rank's part of a parameter or gradient."""
    return tensor.to_local() if is_shard(tensor) else tensor  # type: ignore[attr-defined]


def is_shard(tensor: Shaped[Tensor, "..."]) -> bool:
    """Says whether a parameter or gradient is a DTensor, of which this rank has a part."""
    return hasattr(tensor, "to_local")
