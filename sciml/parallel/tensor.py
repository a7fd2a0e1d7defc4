"""Plans applied to a model: parameters cut over the ranks of the matrix axis, tokens over these and the token axis.

Parameters become this rank's parts, as plain tensors, so that every module goes on computing as it is written;
what crosses ranks happens where tensors enter and leave modules.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.distributed.axes import Role
from sciml.distributed.collectives import (
    Group,
    all_reduce,
    all_reduce_max,
    all_to_all,
    copy_to_region,
    gather_replicated,
    reduce_scatter,
    share_gradient,
)
from sciml.distributed.mesh import Mesh
from sciml.distributed.not_compiled import NotCompiled
from sciml.nn.convolution import GridConv
from sciml.nn.low_rank import DOWN, matrix_product
from sciml.nn.recompute import for_kept, kept
from sciml.nn.staged import SharedGrid
from sciml.nn.topology import Topology
from sciml.nn.vocabulary import VocabularyEmbedding, VocabularyHead
from sciml.parallel.plan import (
    AllGather,
    AllReduce,
    Average,
    GatherReplicated,
    InputStep,
    OutputStep,
    OwnChannels,
    Scatter,
    ShardingPlan,
    Style,
    cut_dim,
    fits,
    has_partial_gradient,
    owners,
)
from sciml.parallel.regather import Regather
from sciml.parallel.rows import shared_rows
from sciml.parallel.tokens import TokenLayout


class RowLinear(nn.Linear):
    """Applies a linear to some of the inputs: ranks' outputs are summed, and the bias is added once."""

    combine: Callable[[Tensor], Tensor]

    def forward(self, x: Float[Tensor, "... feature"]) -> Float[Tensor, "... out"]:
        total = self.combine(_partial_sums(self, x))
        return total if self.bias is None else total + self.bias.to(total.dtype)


def _product_to_add_up(linear: nn.Linear, x: Float[Tensor, "... feature"]) -> Float[Tensor, "... out"]:
    """Returns a rank's part of a product, which only the sum over ranks reads; the factors of a change read more."""
    with nullcontext() if hasattr(linear, DOWN) else for_kept():
        return matrix_product(linear, x)


_partial_sums = NotCompiled(_product_to_add_up)


class RowConv(GridConv):
    """Applies a convolution to some of the channels: ranks' outputs are summed, and the bias is added once."""

    combine: Callable[[Tensor], Tensor]

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch channel row column"], topology: Topology
    ) -> Float[Tensor, "batch out row column"]:
        total = self.combine(F.conv2d(topology.pad(x, self.kernel_size[0] // 2), self.weight))
        return total if self.bias is None else total + self.bias.to(total.dtype)[:, None, None]


def cut_parameters(model: nn.Module, plan: ShardingPlan, mesh: Mesh) -> tuple[dict[str, int], set[str]]:
    """Leaves every parameter of a model on the meta device with this rank's shape.

    Returns:
        The dim along which each cut parameter is cut, and the names of the whole ones whose gradients
        each rank knows only in part.
    """
    dims: dict[str, int] = {}
    partial_sums: set[str] = set()
    ranks = mesh.size(Role.MATRIX)
    if ranks == 1:
        return dims, partial_sums
    for prefix, module in list(owners(model)):
        style = plan.style_of(prefix)
        for key, parameter in list(module.named_parameters(recurse=False)):
            name = f"{prefix}.{key}"
            dim = cut_dim(style, key)
            if dim is not None:
                dims[name] = dim
                shape = list(parameter.shape)
                shape[dim] //= ranks
                part = torch.empty(shape, dtype=parameter.dtype, device="meta")
                setattr(module, key, nn.Parameter(part, parameter.requires_grad))
            elif has_partial_gradient(style, key, plan.cuts_tokens):
                partial_sums.add(name)
        if style is Style.ROW:
            _cut_rows(prefix, module, plan, mesh)
        elif style is Style.VOCABULARY:
            _cut_vocabulary(module, plan, mesh)
    return dims, partial_sums


def _cut_rows(name: str, module: nn.Module, plan: ShardingPlan, mesh: Mesh) -> None:
    """Lets a module with some of the inputs add up its outputs with those of other ranks."""
    if isinstance(module, GridConv):
        module.__class__ = RowConv
        # What follows is computed alike by all ranks, each of which hands back an equal part of the gradient.
        module.combine = partial(_total, group=mesh.group(Role.MATRIX))  # type: ignore[assignment]
    elif isinstance(module, nn.Linear):
        module.__class__ = RowLinear
        module.combine = partial(_leave(plan, mesh), keep=kept)  # type: ignore[assignment]
    else:
        raise TypeError(f"sharding plan: {name} is cut by rows and is neither linear nor a convolution")


def _total(x: Float[Tensor, "..."], group: Group) -> Float[Tensor, "..."]:
    """Returns the sum over ranks; its gradient is the sum of theirs."""
    return copy_to_region(all_reduce(x, group), group)


def _own_part(x: Float[Tensor, "..."], dim: int, mesh: Mesh) -> Float[Tensor, "..."]:
    return x.chunk(mesh.size(Role.MATRIX), dim)[mesh.rank(Role.MATRIX)]


def _leave(plan: ShardingPlan, mesh: Mesh) -> Callable[..., Tensor]:
    """Returns the map from partial sums to their total: of all tokens, or of this rank's where tokens are cut."""
    leave = partial(reduce_scatter, dim=1) if plan.cuts_tokens else all_reduce
    return partial(leave, group=mesh.group(Role.MATRIX))


def _cut_vocabulary(module: nn.Module, plan: ShardingPlan, mesh: Mesh) -> None:
    """Tells a module with some of the words which these are, and how ranks put together what they have."""
    group, rank = mesh.group(Role.MATRIX), mesh.rank(Role.MATRIX)
    if isinstance(module, VocabularyEmbedding):
        module.combine = _leave(plan, mesh)
    elif isinstance(module, VocabularyHead):
        module.total, module.largest = partial(all_reduce, group=group), partial(all_reduce_max, group=group)
        module.join = partial(gather_replicated, dim=-1, group=group)
    else:
        raise TypeError(f"sharding plan: a {type(module).__name__} has no vocabulary to cut")
    num_words = len(module.weight)
    module.own_words = range(rank * num_words, (rank + 1) * num_words)


def connect(model: nn.Module, plan: ShardingPlan, mesh: Mesh) -> TokenLayout | None:
    """Lets tensors cross ranks where the plan says.

    Returns:
        How tokens lie over the mesh, where they are cut.
    """
    if mesh.size(Role.MATRIX, Role.TOKEN) == 1:
        return None
    attention = [module for name, module in model.named_modules() if fits(plan.attention, name)]
    layout = TokenLayout(mesh, causal=any(module.causal for module in attention))
    for name, module in model.named_modules():
        for pattern in fits(plan.inputs, name):
            for step in plan.inputs[pattern]:
                _connect_input(module, step, layout)
        for pattern in fits(plan.outputs, name):
            module.register_forward_hook(partial(_transform_output, _output_step(plan.outputs[pattern], layout)))
        if isinstance(module, SharedGrid) and fits(plan.grids, name):
            module.share = partial(shared_rows, group=mesh.group(Role.TOKEN))
        if plan.cuts_tokens and module in attention:
            if layout.has_ring:
                module.mix = layout.mix_around
            module.register_forward_pre_hook(partial(_to_heads, layout))
            module.register_forward_hook(partial(_to_tokens, layout))
    return layout


def _connect_input(module: nn.Module, step: InputStep, layout: TokenLayout) -> None:
    """Lets a module's first input cross ranks before its forward pass."""
    if isinstance(step, AllGather) and Role.TOKEN not in step.axes:
        Regather(step.dim, layout.mesh.group(Role.MATRIX)).attach(module)
    else:
        module.register_forward_pre_hook(partial(_transform_input, _input_step(step, layout)))


def _input_step(step: InputStep, layout: TokenLayout) -> Callable[[Tensor], Tensor]:
    if isinstance(step, Scatter):
        return partial(layout.scatter, dim=step.dim, axes=step.axes, partial=step.partial)
    if isinstance(step, OwnChannels):
        return partial(_own_part, dim=step.dim, mesh=layout.mesh)
    if isinstance(step, AllGather):
        return partial(layout.all_gather, dim=step.dim)
    return partial(copy_to_region, group=layout.mesh.group(*step.axes))


def _transform_input(step: Callable[[Tensor], Tensor], module: nn.Module, args: tuple[Any, ...]) -> Any:
    first, *others = args
    return (step(first), *others)


def _output_step(step: OutputStep, layout: TokenLayout) -> Callable[[Tensor], Tensor]:
    if isinstance(step, AllReduce):
        return layout.all_reduce
    if isinstance(step, Average):
        return partial(share_gradient, num_ranks=layout.mesh.size(*step.axes))
    if isinstance(step, GatherReplicated):
        return partial(layout.gather_replicated, dim=step.dim, axes=step.axes)
    return partial(all_to_all, cut=step.dim, join=-1, group=layout.mesh.group(Role.MATRIX))


def _transform_output(
    step: Callable[[Tensor], Tensor], module: nn.Module, args: Any, output: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    return step(output)


def _to_heads(layout: TokenLayout, module: nn.Module, args: tuple[Any, ...]) -> Any:
    query, key, value, rotary, *others = args
    if layout.has_ring:
        rotary = layout.own_rotary(rotary)
    return (*map(layout.to_heads, (query, key, value)), rotary, *others)


def _to_tokens(layout: TokenLayout, module: nn.Module, args: Any, output: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return layout.to_tokens(output)
