"""Fine-tuning of few parameters: matrices that stay and learn a change of low rank, and parameters that stay.

Source: Hu et al. (2021), LoRA, https://doi.org/10.48550/arXiv.2106.09685, with a factor of one before the change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError, nearest
from sciml.nn.initialization import Constant, Normal, starts_as

DOWN, UP = "lora_down", "lora_up"
"""Names of the two factors of a change: from the inputs to the rank, and from there to the outputs."""


class LowRankLinear(nn.Linear):
    """Applies a linear whose matrix stays as it is and has a learned change beside it, ``lora_up @ lora_down``.

    ``lora_up`` starts at zero, so that a model starts as it was without.
    """

    def forward(self, x: Float[Tensor, "... feature"]) -> Float[Tensor, "... out"]:
        total = matrix_product(self, x)
        return total if self.bias is None else total + self.bias.to(total.dtype)


def matrix_product(linear: nn.Linear, x: Float[Tensor, "... feature"]) -> Float[Tensor, "... out"]:
    """Returns the product of a linear's matrix, with its change where it has one, and inputs; without the bias."""
    total = F.linear(x, linear.weight)
    if isinstance(getattr(linear, DOWN, None), Tensor):
        total = total + F.linear(F.linear(x, linear.lora_down), linear.lora_up)  # type: ignore[arg-type]
    return total


def add_low_rank(model: nn.Module, rank: int) -> None:
    """Gives each plain linear of a model a change of low rank, where that has fewer numbers than its matrix.

    These matrices then stay; all other parameters are trained as ever.

    Args:
        rank: of the changes; 0 leaves the model as it is.

    Raises:
        ConfigError: no matrix is larger than its change would be.
    """
    if not rank:
        return
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    large = [one for one in linears if rank * (one.in_features + one.out_features) < one.weight.numel()]
    if not large:
        most = max((_largest_rank(one) for one in linears), default=0)
        raise ConfigError(
            f"a change of rank {rank} is no smaller than any matrix of this model",
            key="lora_rank",
            hint=f"at most {most}" if most else "leave it out",
        )
    for linear in large:
        linear.__class__ = LowRankLinear
        weight = linear.weight.requires_grad_(False)
        setattr(linear, DOWN, nn.Parameter(weight.new_zeros(rank, linear.in_features)))
        setattr(linear, UP, nn.Parameter(weight.new_zeros(linear.out_features, rank)))
        starts_as(linear, lora_down=Normal(1 / math.sqrt(linear.in_features)), lora_up=Constant(0.0))


def _largest_rank(linear: nn.Linear) -> int:
    return (linear.weight.numel() - 1) // (linear.in_features + linear.out_features)


def low_rank_factors(name: str, names: Mapping[str, object] | set[str]) -> tuple[str, str] | None:
    """Returns the names of the two factors of a matrix's change, up and down; None where a parameter has none.

    Args:
        name: of the parameter.
        names: of all parameters.
    """
    owner, _, key = name.rpartition(".")
    factors = f"{owner}.{UP}", f"{owner}.{DOWN}"
    return factors if key == "weight" and factors[0] in names else None


def is_low_rank(name: str) -> bool:
    """Says whether a parameter is a factor of a change."""
    return name.rpartition(".")[2] in (DOWN, UP)


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Lets parameters whose names fit a pattern stay as they are, e.g. ``encoder.layers.0.*``.

    Raises:
        ConfigError: a pattern fits none, or nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        fitting = [name for name in parameters if fnmatchcase(name, pattern)]
        if not fitting:
            raise ConfigError(f"{pattern!r} fits no parameter", key="freeze", hint=_nearest(pattern, list(parameters)))
        for name in fitting:
            parameters[name].requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError("nothing is left to train", key="freeze", hint="leave a pattern out")


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """Returns a hint that offers the module of a model nearest to a pattern, or all outer ones."""
    modules = {".".join(name.split(".")[:depth]) for name in names for depth in (1, 2, 3)}
    close = nearest(pattern.rstrip("*").rstrip("."), modules)
    return close if close.startswith("did") else nearest("", {f"{name.partition('.')[0]}.*" for name in names})
