"""First values of parameters: drawn by name, so that they are the same on every mesh.

Every parameter has a generator of its own, seeded by (seed, name of the parameter). A rank that holds a
slice draws the whole parameter and keeps its part; the weights then depend neither on the order of
construction nor on how the model is cut.

The rule of a parameter is the one noted on its module by :func:`starts_as`, or else that of torch's own modules here:
weights keep the variance of what passes through them, biases start at zero and gains at one. For any other parameter
there is no guess.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
InstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d
Norm = nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | BatchNorm | InstanceNorm


class Rule(Protocol):
    """Fills a tensor in place; draws from the generator alone."""

    def __call__(self, tensor: Float[Tensor, "..."], generator: torch.Generator) -> None: ...


@dataclass(frozen=True)
class Normal:
    """Draws independent normal numbers of the given standard deviation."""

    std: float

    def __call__(self, tensor: Float[Tensor, "..."], generator: torch.Generator) -> None:
        tensor.normal_(0.0, self.std, generator=generator)


@dataclass(frozen=True)
class UnitRows:
    """Draws independent normal numbers of variance 1, for a table from which single rows are looked up.

    A look-up reads one weight for each output, so this is the rule of :func:`fan_in` for it.

    Attributes:
        padding: number of a row that stays zero and stands for no entry; None: there is none.
    """

    padding: int | None = None

    def __call__(self, tensor: Float[Tensor, "..."], generator: torch.Generator) -> None:
        tensor.normal_(generator=generator)
        if self.padding is not None:
            tensor[self.padding] = 0.0


@dataclass(frozen=True)
class Constant:
    """Fills with one value."""

    value: float

    def __call__(self, tensor: Float[Tensor, "..."], generator: torch.Generator) -> None:
        tensor.fill_(self.value)


def xavier_uniform(tensor: Float[Tensor, "out in"], generator: torch.Generator) -> None:
    """Draws uniform numbers that keep variances through a linear, for a weight (out, in).

    Source: Glorot and Bengio (2010), https://proceedings.mlr.press/v9/glorot10a.html.
    """
    bound = math.sqrt(6.0 / sum(tensor.shape))
    tensor.uniform_(-bound, bound, generator=generator)


def starts_as(module: M, **rules: Rule) -> M:
    """Notes on a module how its own parameters start, e.g. ``starts_as(linear, weight=Normal(0.02))``."""
    module.initial_rules = {**getattr(module, "initial_rules", {}), **rules}  # type: ignore[assignment]
    return module


def zeros(module: M) -> M:
    """Notes on a module that its own parameters start at zero."""
    return starts_as(module, **{name: Constant(0.0) for name, _ in module.named_parameters(recurse=False)})


def addition(module: M) -> M:
    """Notes on a module that it adds to what others compute: its own parameters start at zero beside the weights of an
    older model that does not have it.
    """
    module.is_addition = True  # type: ignore[assignment]
    return module


def additions(model: nn.Module) -> set[str]:
    """Returns the names of the parameters of all additions of a model."""
    return {
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if getattr(module, "is_addition", False)
        for parameter, _ in module.named_parameters(recurse=False)
    }


def rule_of(module: nn.Module, parameter: str) -> Rule:
    """Returns how a module's own parameter starts: as noted on the module, or as modules of its kind do.

    Raises:
        ValueError: where neither says it.
    """
    noted: dict[str, Rule] = getattr(module, "initial_rules", {})
    rule = noted.get(parameter) or _rule_of_kind(module, parameter)
    if rule is None:
        raise ValueError(
            f"{type(module).__name__} does not say how its parameter {parameter!r} starts; "
            f"add starts_as(self, {parameter}=Normal(0.02)), or another rule, to its __init__"
        )
    return rule


def _rule_of_kind(module: nn.Module, parameter: str) -> Rule | None:
    """Returns how a parameter of one of torch's own modules starts; None for any other."""
    if parameter == "bias" and isinstance(module, nn.Linear | Convolution | Norm):
        return Constant(0.0)
    if parameter != "weight":
        return None
    if isinstance(module, nn.Linear):
        return xavier_uniform
    if isinstance(module, Convolution):
        return Normal(1.0 / math.sqrt(fan_in(module)))
    if isinstance(module, nn.Embedding):
        return UnitRows(module.padding_idx)
    return Constant(1.0) if isinstance(module, Norm) else None


def fan_in(module: Convolution) -> float:
    """Returns how many inputs each output of a convolution adds up, on average where a transposed one strides.

    Weights of variance ``1 / fan_in`` keep the variance of independent inputs.

    Source: LeCun et al. (1998), Efficient BackProp, section 4.6, https://doi.org/10.1007/3-540-49430-8_2.
    """
    inputs = module.in_channels // module.groups * math.prod(module.kernel_size)
    return inputs / math.prod(module.stride) if module.transposed else inputs


def generator_for(seed: int, name: str) -> torch.Generator:
    """Returns the generator of a parameter, on the CPU so that every device draws the same numbers."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@torch.no_grad()
def initialize(model: nn.Module, seed: int) -> None:
    """Gives every parameter of a model its first values; those on the meta device are left alone.

    Args:
        model: the model, whole.
        seed: makes the draw reproducible together with the parameters' names.
    """
    known = {name for name, _ in model.named_parameters()}  # one that is shared counts under its first name
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f"{prefix}.{name}" if prefix else name
            if parameter.is_meta or full_name not in known:
                continue
            value = torch.empty(parameter.shape, dtype=parameter.dtype)
            rule_of(module, name)(value, generator_for(seed, full_name))
            parameter.copy_(value)
