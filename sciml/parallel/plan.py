"""Describes as data how a model is cut over a mesh: tables from module patterns to what happens there.

The tables stand beside the model's class and are read by whoever applies them, by the planner (bytes, traffic)
and by the checkpoint (resharding). Nothing here touches a process group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from torch import nn

from sciml.distributed.axes import Role
from sciml.nn.low_rank import DOWN, UP


class Style(StrEnum):
    """Says what a tensor-parallel group does with the parameters of a module.

    ``COLUMN`` cuts the outputs (dim 0 of weight and bias): each rank computes its heads or channels.
    ``ROW`` cuts the inputs (dim 1 of the weight); outputs are summed over ranks and the bias, held by all,
    is added once after the sum. Both cut linears, and convolutions by their channels. ``VOCABULARY`` cuts words
    (dim 0): each rank computes with its own, and the module is told which these are, and how to combine. ``REPLICATE``
    and ``REPLICATE_PARTIAL_GRAD`` hold whole parameters on every rank. With the first, ranks compute the same and have
    the whole gradient; with the second, each rank sees only its tokens or its heads, and gradients are summed over the
    group.
    """

    COLUMN = "column"
    ROW = "row"
    VOCABULARY = "vocabulary"
    REPLICATE_PARTIAL_GRAD = "sequence"
    REPLICATE = "replicate"


def cut_dim(style: Style, parameter: str) -> int | None:
    """Returns the dim along which a module's own parameter is cut, or None where every rank holds all of it."""
    if style in (Style.COLUMN, Style.VOCABULARY):
        return None if parameter == DOWN else 0
    if style is Style.ROW and parameter not in ("bias", UP):
        return 1
    return None


def has_partial_gradient(style: Style, parameter: str, cuts_tokens: bool) -> bool:
    """Says whether each rank knows only its part of the gradient of a parameter that it holds whole.

    Of a matrix that is cut, the factor of its low-rank change on the other side is one of these.

    Args:
        cuts_tokens: whether tokens are cut between matrices.
    """
    if style in (Style.COLUMN, Style.ROW) and parameter in (DOWN, UP):
        return cut_dim(style, parameter) is None
    return style is Style.REPLICATE_PARTIAL_GRAD or (style is Style.ROW and cuts_tokens)


@dataclass(frozen=True)
class Scatter:
    """Cuts tokens that are the same on every rank over some axes.

    Attributes:
        dim: their dim in the module's first input.
        axes: those of tokens, or of tokens and matrices.
        partial: whether each rank hands back the gradient of its own tokens alone, for modules before whose gradients
            are summed over the ranks; else every rank gets that of all tokens.
    """

    dim: int = 1
    axes: tuple[Role, ...] = (Role.TOKEN,)
    partial: bool = False


@dataclass(frozen=True)
class CopyToRegion:
    """Hands an input that is the same on every rank to ranks that each have a part of its gradient, which are summed.

    Attributes:
        axes: those of matrices, for ranks with different heads or channels; or those of tokens and matrices, before
            modules of which each rank takes an equal part of the gradient.
    """

    axes: tuple[Role, ...] = (Role.MATRIX,)


@dataclass(frozen=True)
class AllGather:
    """Gathers tokens that are cut between matrices, for ranks that compute different things with them.

    Attributes:
        dim: their dim.
        axes: those of matrices, for ranks with different heads or channels; or those of tokens and matrices, for ranks
            that each look at all tokens to compute their own. The second leaves out the fill of
            :class:`sciml.parallel.tokens.TokenLayout`.
    """

    dim: int = 1
    axes: tuple[Role, ...] = (Role.MATRIX,)


@dataclass(frozen=True)
class OwnChannels:
    """Keeps, of channels that are the same on every rank, those of this rank, and hands back their gradient alone.

    Attributes:
        dim: that of the channels.
    """

    dim: int = 1


@dataclass(frozen=True)
class AllToAll:
    """Turns all tokens with some of the channels on each matrix rank into some of the tokens with all channels."""

    dim: int = 1


@dataclass(frozen=True)
class GatherReplicated:
    """Gathers tokens that are cut over some axes in the module's output; every rank continues with all of them, without
    the fill.

    Attributes:
        dim: their dim.
        axes: those of tokens and matrices, or of tokens alone where matrix ranks have the same.
    """

    dim: int = 1
    axes: tuple[Role, ...] = (Role.TOKEN, Role.MATRIX)


@dataclass(frozen=True)
class Average:
    """Gives each rank that computes the same an equal part of the gradient, so that their sum is the whole.

    Attributes:
        axes: of the ranks that compute the same.
    """

    axes: tuple[Role, ...] = (Role.TOKEN, Role.MATRIX)


@dataclass(frozen=True)
class AllReduce:
    """Sums a module's output over ranks that each have tokens of their own."""


InputStep = Scatter | CopyToRegion | AllGather | OwnChannels
"""Steps that a module's first input may take."""
OutputStep = AllToAll | GatherReplicated | AllReduce | Average
"""What may happen to a module's output."""


@dataclass(frozen=True)
class Stages:
    """Says how a model is cut into pipeline stages; see :class:`sciml.parallel.pipeline.Staged`.

    Attributes:
        first: modules of the first stage alone.
        blocks: name of the list of blocks, any slice of which is a stage.
        last: modules of the last stage alone.
    """

    first: tuple[str, ...] = ()
    blocks: str | None = None
    last: tuple[str, ...] = ()

    def within(self, prefix: str) -> Stages:
        """Returns the same stages for a model that stands at ``prefix`` inside another."""
        blocks = None if self.blocks is None else f"{prefix}.{self.blocks}"
        return Stages(_prefixed(prefix, self.first), blocks, _prefixed(prefix, self.last))

    def __or__(self, other: Stages) -> Stages:
        return Stages(self.first + other.first, self.blocks or other.blocks, self.last + other.last)


@dataclass(frozen=True)
class ShardingPlan:
    """Says what happens at which module when a model is cut over a mesh.

    A pattern is compared with the dotted name of a module that owns parameters, part by part: ``*`` stands
    for one part or within one, as in ``blocks.*.attention.w[qkv]``. Exactly one rule must fit each such module.

    Attributes:
        rules: the style of parameters; plain strings such as ``"column"`` are taken as styles.
        inputs: what happens to a module's first input.
        outputs: what happens to its output.
        attention: modules called with queries, keys and values (batch, token, head, channel), which mix tokens.
        grids: modules that say which rows of a grid a rank works on; ranks of the token axes share them.
        stages: how the model is cut into pipeline stages.
        tied: names of parameters of the last stage that may be the same as others, of the first, and those others'
            names. In a pipeline both stages then hold one, and their gradients are added.
    """

    rules: Mapping[str, Style]
    inputs: Mapping[str, tuple[InputStep, ...]] = field(default_factory=dict)
    outputs: Mapping[str, OutputStep] = field(default_factory=dict)
    attention: tuple[str, ...] = ()
    stages: Stages = field(default_factory=Stages)
    tied: Mapping[str, str] = field(default_factory=dict)
    grids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", {pattern: Style(style) for pattern, style in self.rules.items()})

    def within(self, prefix: str) -> ShardingPlan:
        """Returns the same plan for a model that stands at ``prefix`` inside another."""

        def moved(table: Mapping[str, Any]) -> dict[str, Any]:
            return {f"{prefix}.{name}": value for name, value in table.items()}

        return ShardingPlan(
            moved(self.rules),
            moved(self.inputs),
            moved(self.outputs),
            _prefixed(prefix, self.attention),
            self.stages.within(prefix),
            {f"{prefix}.{name}": f"{prefix}.{other}" for name, other in self.tied.items()},
            _prefixed(prefix, self.grids),
        )

    def __or__(self, other: ShardingPlan) -> ShardingPlan:
        return ShardingPlan(
            {**self.rules, **other.rules},
            {**self.inputs, **other.inputs},
            {**self.outputs, **other.outputs},
            self.attention + other.attention,
            self.stages | other.stages,
            {**self.tied, **other.tied},
            self.grids + other.grids,
        )

    @property
    def cuts_tokens(self) -> bool:
        """Says whether tokens are cut between the modules that are cut by heads and channels."""
        return any(isinstance(step, AllGather) for steps in self.inputs.values() for step in steps)

    def style_of(self, name: str) -> Style:
        """Returns the style of one module.

        Raises:
            ValueError: where no rule or more than one fits.
        """
        patterns = fits(self.rules, name)
        if len(patterns) != 1:
            what = f"{len(patterns)} rules ({', '.join(patterns)})" if patterns else "no rule"
            raise ValueError(f"sharding plan: {what} for module {name!r}, exactly one is needed")
        return self.rules[patterns[0]]

    def styles(self, model: nn.Module) -> dict[str, Style]:
        """Returns the style of every module that owns parameters, by name.

        Raises:
            ValueError: where not exactly one rule fits a module.
        """
        return {name: self.style_of(name) for name, _ in owners(model)}


def owners(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules that own parameters themselves, with their dotted names."""
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            yield name, module


def fits(patterns: Iterable[str], name: str) -> list[str]:
    """Returns the patterns that a module's name fits."""
    return [pattern for pattern in patterns if _matches(pattern, name)]


@lru_cache(maxsize=65536)
def _matches(pattern: str, name: str) -> bool:
    parts, names = pattern.split("."), name.split(".")
    return len(parts) == len(names) and all(map(fnmatchcase, names, parts))


def _prefixed(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names)
