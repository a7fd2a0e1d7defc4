"""How a model is cut over a tensor-parallel group, as data: a table from module patterns to styles.

The table stands beside the model's class and is read by whoever applies it, by the planner (bytes, traffic)
and by the checkpoint (resharding). Nothing here touches a process group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

from torch import nn

from sciml.core.errors import ConfigError


class Style(str, Enum):
    """What a tensor-parallel group does with the parameters of a module.

    ``COLUMN`` cuts the outputs (dim 0 of weight and bias): each rank computes its heads or channels.
    ``ROW`` cuts the inputs (dim 1 of the weight); outputs are summed over ranks and the bias, held by all,
    is added once after the sum. ``SEQUENCE`` and ``REPLICATE`` hold whole parameters on every rank; the first
    acts on tokens that sequence parallelism may cut, so that its gradients are then summed over the group.
    """

    COLUMN = "column"
    ROW = "row"
    SEQUENCE = "sequence"
    REPLICATE = "replicate"


def cut_dim(style: Style, parameter: str) -> int | None:
    """The dim along which a module's own parameter is cut, or None where every rank holds all of it."""
    if style is Style.COLUMN:
        return 0
    if style is Style.ROW and parameter != "bias":
        return 1
    return None


@dataclass(frozen=True)
class ShardingPlan:
    """Rules from patterns of module names to styles.

    A pattern is compared with the dotted name of a module that owns parameters, part by part: ``*`` stands
    for one part or within one, as in ``blocks.*.attention.w[qkv]``. Exactly one rule must fit each such module.

    Attributes:
        rules: the table; plain strings such as ``"column"`` are taken as styles.
    """

    rules: Mapping[str, Style]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", {pattern: Style(style) for pattern, style in self.rules.items()})

    def within(self, prefix: str) -> ShardingPlan:
        """The same plan for a model that stands at ``prefix`` inside another."""
        return ShardingPlan({f"{prefix}.{pattern}": style for pattern, style in self.rules.items()})

    def __or__(self, other: ShardingPlan) -> ShardingPlan:
        return ShardingPlan({**self.rules, **other.rules})

    def style_of(self, name: str) -> Style:
        """The style of one module.

        Raises:
            ValueError: where no rule or more than one fits.
        """
        fits = [pattern for pattern in self.rules if _matches(pattern, name)]
        if len(fits) != 1:
            what = f"{len(fits)} rules ({', '.join(fits)})" if fits else "no rule"
            raise ValueError(f"sharding plan: {what} for module {name!r}, exactly one is needed")
        return self.rules[fits[0]]

    def styles(self, model: nn.Module) -> dict[str, Style]:
        """The style of every module that owns parameters, by name.

        Raises:
            ValueError: where not exactly one rule fits a module.
        """
        return {name: self.style_of(name) for name, _ in owners(model)}

    def check(self, model: nn.Module, degree: int) -> None:
        """Checks that a tensor-parallel group of ``degree`` ranks can cut the model evenly.

        Raises:
            ConfigError: naming the degrees that work.
        """
        counts = [
            parameter.shape[dim]
            for name, module in owners(model)
            for key, parameter in module.named_parameters(recurse=False)
            if (dim := cut_dim(self.style_of(name), key)) is not None
        ]
        if any(count % degree for count in counts):
            works = [str(d) for d in range(1, min(counts) + 1) if not any(count % d for count in counts)]
            raise ConfigError(
                f"{degree} ranks cannot share the model's heads and channels evenly",
                key="parallel.tp",
                hint=f"degrees that work: {', '.join(works)}",
            )


def owners(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that own parameters themselves, with their dotted names."""
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            yield name, module


def _matches(pattern: str, name: str) -> bool:
    parts, names = pattern.split("."), name.split(".")
    return len(parts) == len(names) and all(map(fnmatchcase, names, parts))
