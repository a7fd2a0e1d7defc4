"""First values of parameters: drawn by name, so that they are the same on every mesh.

Every parameter has a generator of its own, seeded by (seed, name of the parameter). A rank that holds a
slice draws the whole parameter and keeps its part; the weights then depend neither on the order of
construction nor on how the model is cut.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class Rule(Protocol):
    """Fills a tensor in place; draws from the generator alone."""

    def __call__(self, tensor: Tensor, generator: torch.Generator) -> None: ...


@dataclass(frozen=True)
class Normal:
    """Independent normal numbers of the given standard deviation."""

    std: float

    def __call__(self, tensor: Tensor, generator: torch.Generator) -> None:
        tensor.normal_(0.0, self.std, generator=generator)


@dataclass(frozen=True)
class Constant:
    """One value everywhere."""

    value: float

    def __call__(self, tensor: Tensor, generator: torch.Generator) -> None:
        tensor.fill_(self.value)


def xavier_uniform(tensor: Tensor, generator: torch.Generator) -> None:
    """Uniform numbers that keep variances through a linear, for a weight (out, in).

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


def rule_of(module: nn.Module, parameter: str) -> Rule:
    """How a module's own parameter starts: as noted on it, else by its name and shape."""
    noted: dict[str, Rule] = getattr(module, "initial_rules", {})
    if parameter in noted:
        return noted[parameter]
    if parameter == "bias":
        return Constant(0.0)
    if isinstance(module, nn.Linear):
        return xavier_uniform
    if parameter == "weight":  # gain of a normalization
        return Constant(1.0)
    raise ValueError(f"{type(module).__name__} does not say how its parameter {parameter!r} starts")


def generator_for(seed: int, name: str) -> torch.Generator:
    """The generator of a parameter, on the CPU so that every device draws the same numbers."""
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
