"""Checks by which degrees of parallelism a sharding plan can cut a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from sciml.core.errors import ConfigError
from sciml.distributed.axes import RING, SAMPLES, Role, axes_of, key_of
from sciml.parallel.plan import ShardingPlan, Style, cut_dim, fits, owners


def check_plan(model: nn.Module, *, matrices: int, tokens: int, ring: int, stages: int) -> None:
    """Refuses degrees that a model's sharding plan cannot cut it by, and all but 1 of a model without a plan.

    Raises:
        ConfigError: naming degrees that work.
    """
    plan: ShardingPlan | None = getattr(model, "plan", None)
    if plan is not None:
        check_cut(plan, model, matrices=matrices, tokens=tokens, ring=ring, stages=stages)
        return
    for role, degree in ((Role.STAGE, stages), (Role.TOKEN, tokens * ring), (Role.MATRIX, matrices)):
        if degree > 1:
            data = " or ".join(axis.key for axis in axes_of(*SAMPLES))
            raise ConfigError(
                f"must be 1 for {type(model).__name__}, which has no sharding plan, got {degree}",
                key=key_of(role),
                hint=f"try {data}",
            )


def check_cut(
    plan: ShardingPlan, model: nn.Module, *, matrices: int = 1, tokens: int = 1, ring: int = 1, stages: int = 1
) -> None:
    """Checks that degrees can cut a model evenly.

    Args:
        matrices: ranks that share matrices.
        tokens: ranks that share tokens, and heads inside of attention.
        ring: ranks that share tokens, and pass keys and values around.
        stages: pipeline stages, over all ranks.

    Raises:
        ConfigError: naming the degrees that work.
    """
    _check_matrices(plan, model, matrices)
    _check_tokens(plan, model, matrices, tokens)
    _check_ring(plan, model, ring)
    _check_stages(plan, model, stages)


def _check_matrices(plan: ShardingPlan, model: nn.Module, ranks: int) -> None:
    if ranks == 1:
        return
    cut = [
        (style, parameter.shape[dim])
        for name, module in owners(model)
        for key, parameter in module.named_parameters(recurse=False)
        if (dim := cut_dim(style := plan.style_of(name), key)) is not None
    ]
    if not cut:
        raise ConfigError("this model has nothing that tensor parallelism cuts", key=key_of(Role.MATRIX), hint="use 1")
    counts = [count for _, count in cut] + _num_heads(plan, model) + _num_groups(plan, model)
    if any(count % ranks for count in counts):
        raise ConfigError(
            f"{ranks} ranks cannot share {_uneven(plan, model, cut, ranks)} evenly",
            key=key_of(Role.MATRIX),
            hint=f"degrees that work: {_degrees(counts)}",
        )


def _uneven(plan: ShardingPlan, model: nn.Module, cut: list[tuple[Style, int]], ranks: int) -> str:
    """Says what of a model ranks cannot share, as narrowly as it is known."""
    words = {count for style, count in cut if style is Style.VOCABULARY and count % ranks}
    if words:
        return f"a vocabulary of {min(words)} words"
    heads = {count for count in _num_heads(plan, model) if count % ranks}
    if heads and not any(count % ranks for _, count in cut):
        return f"{min(heads)} attention head{'s' * (min(heads) > 1)} of keys and values"
    return "the model's heads and channels"


def _num_groups(plan: ShardingPlan, model: nn.Module) -> list[int]:
    """Returns the numbers of groups that normalizations of cut channels have."""
    norms = ((name, module) for name, module in owners(model) if isinstance(module, nn.GroupNorm))
    return [module.num_groups for name, module in norms if plan.style_of(name) is Style.COLUMN]


def _check_tokens(plan: ShardingPlan, model: nn.Module, matrix_ranks: int, ranks: int) -> None:
    if ranks == 1:
        return
    heads = [count // matrix_ranks for count in _num_heads(plan, model)]
    if not heads:
        raise ConfigError("this model has no tokens to spread", key=key_of(Role.TOKEN), hint="use 1")
    if any(count % ranks for count in heads):
        raise ConfigError(
            f"{ranks} ranks cannot share the {min(heads)} attention heads of a rank evenly",
            key=key_of(Role.TOKEN),
            hint=f"degrees that work: {_degrees(heads)}; parallel.{RING} spreads tokens over any number of ranks",
        )


def _check_ring(plan: ShardingPlan, model: nn.Module, ranks: int) -> None:
    cores = _cores(plan, model)
    if ranks == 1:
        return
    key = f"parallel.{RING}"
    if not cores:
        raise ConfigError("this model has no tokens to spread", key=key, hint="use 1")
    if any(core.has_windows for core in cores):
        raise ConfigError("windows do not go around a ring", key=key, hint=f"use 1, and {key_of(Role.TOKEN)}")
    if any(core.dropout for core in cores):
        raise ConfigError("a ring drops no attention weights", key=key, hint="use 1, or model.dropout=0")


def _check_stages(plan: ShardingPlan, model: nn.Module, stages: int) -> None:
    if stages == 1:
        return
    if plan.stages.blocks is None:
        raise ConfigError("this model cannot be cut into pipeline stages", key=key_of(Role.STAGE), hint="use 1")
    depth = len(list(model.get_submodule(plan.stages.blocks).children()))
    if stages > depth:
        raise ConfigError(
            f"{stages} stages are more than the model's {depth} blocks",
            key=key_of(Role.STAGE),
            hint=f"at most {depth}",
        )


def _num_heads(plan: ShardingPlan, model: nn.Module) -> list[int]:
    return [int(core.num_heads) for core in _cores(plan, model)]


def _cores(plan: ShardingPlan, model: nn.Module) -> list[Any]:
    return [module for name, module in model.named_modules() if fits(plan.attention, name)]


def _degrees(counts: list[int]) -> str:
    """Returns the degrees that divide all counts, in words."""
    return ", ".join(str(d) for d in range(1, min(counts) + 1) if not any(count % d for count in counts))
