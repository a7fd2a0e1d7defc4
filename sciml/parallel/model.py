"""A model cut over a mesh: what a plan and some degrees make of a model written for one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from sciml.distributed.axes import RING, ULYSSES, Role
from sciml.distributed.mesh import Mesh
from sciml.nn.initialization import Rule, generator_for, rule_of
from sciml.parallel.config import ParallelConfig
from sciml.parallel.data import is_shard, local, shard_modules
from sciml.parallel.degrees import check_plan
from sciml.parallel.pipeline import Pipeline
from sciml.parallel.placement import Placement
from sciml.parallel.plan import ShardingPlan, owners
from sciml.parallel.stage import block_list, cut_stages
from sciml.parallel.tensor import connect, cut_parameters

Start = Callable[[str, Tensor], Tensor]
"""From a parameter's name and the whole value that its rule drew to the whole value that it is to start from."""


@dataclass
class ParallelModel:
    """Holds this rank's part of a model.

    Attributes:
        module: the model; its parameters are this rank's parts, under the names that they have in the whole.
        mesh: the ranks.
        config: degrees and options.
        cut_dims: the dim along which a parameter is cut by heads and channels.
        partial_sums: parameters whose gradients are to be summed over the ranks that share matrices.
        pipeline: this rank's pipeline stages, where there are several ranks of them.
        tied: names in the module of parameters that are the same as others, and those others' names.
        blocks: name of the list of blocks, where the plan names one.
    """

    module: nn.Module
    mesh: Mesh
    config: ParallelConfig = field(default_factory=ParallelConfig)
    cut_dims: Mapping[str, int] = field(default_factory=dict)
    partial_sums: frozenset[str] = frozenset()
    pipeline: Pipeline | None = None
    tied: Mapping[str, str] = field(default_factory=dict)
    blocks: str | None = None

    @property
    def whole(self) -> nn.Module:
        """Returns the module that is called as the whole model, for inference."""
        return self.module if self.pipeline is None else self.pipeline

    @property
    def roots(self) -> list[nn.Module]:
        """Returns the modules whose calls make up a forward pass."""
        return [self.module] if self.pipeline is None else list(self.pipeline.stages.values())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields this rank's parameters by the names that they have in the whole model, each once."""
        for name, parameter in self.module.named_parameters():
            yield self.tied.get(name, name), parameter

    def tied_names(self) -> set[str]:
        """Returns the names of parameters that the first and the last pipeline stage each hold, for those two ranks."""
        rank, size = self.mesh.rank(Role.STAGE), self.mesh.size(Role.STAGE)
        return set(self.tied.values()) if size > 1 and rank in (0, size - 1) else set()

    def counts(self, name: str) -> bool:
        """Says whether this rank is the one among its pipeline's that a parameter counts on."""
        return self.mesh.rank(Role.STAGE) == 0 or name not in self.tied_names()

    def buffers(self) -> dict[str, Tensor]:
        """Returns further tensors that belong to the model's state; the same on every rank."""
        parameters = dict(self.named_parameters())
        known = {*parameters, *self.tied}
        return {name: value for name, value in self.module.state_dict().items() if name not in known}

    def num_parameters(self) -> int:
        """Returns the number of parameters of the whole model."""
        own = ((name, p) for name, p in self.named_parameters() if self.counts(name))
        count = sum(p.numel() * self.tensor_degree(name) for name, p in own)
        total = torch.tensor(float(count), dtype=torch.float64)
        self.mesh.add([total], Role.STAGE)
        return int(total.item())

    def tensor_degree(self, name: str) -> int:
        """Returns the number of parts into which a parameter is cut by heads and channels."""
        return self.mesh.size(Role.MATRIX) if name in self.cut_dims else 1

    def stored(self, name: str, tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """Returns a parameter, or a tensor of its shape, as it goes into a checkpoint: it knows which part of
        what it is.
        """
        part, placement = local(tensor), self.placements[name]
        return placement.distributed(part) if part.shape == placement.part_shape else part

    @cached_property
    def placements(self) -> dict[str, Placement]:
        """Returns where this rank's part of each parameter lies in the whole one."""
        placements = {}
        inner = {name for name, module in self.module.named_modules() if getattr(module, "is_inner", False)}
        for name, parameter in self.named_parameters():
            shape, cuts = list(parameter.shape), {}
            if name in self.cut_dims:
                dim = cuts[Role.MATRIX] = self.cut_dims[name]
                shape[dim] *= self.mesh.size(Role.MATRIX)
            if is_shard(parameter):
                cuts[Role.SHARD] = 0
            in_block = self.blocks is not None and name.startswith(f"{self.blocks}.")
            in_block = in_block or name.rpartition(".")[0] in inner
            placements[name] = Placement(self.mesh, tuple(shape), cuts, in_block)
        return placements


def parallelize(
    build: Callable[[], nn.Module],
    mesh: Mesh,
    config: ParallelConfig,
    seed: int | None,
    start: Start | None = None,
    half: torch.dtype | None = None,
) -> ParallelModel:
    """Builds a model cut over a mesh; no rank ever holds more of it than its part and one whole parameter.

    The same seed gives the same weights on every mesh.

    Args:
        build: makes the model for one device; called under the meta device.
        seed: of the first values; None leaves them open, for weights that are loaded next.
        start: where weights start from, if not from what their rules draw.
        half: precision in which sharded weights of blocks are gathered; see :func:`sciml.parallel.data.shard_modules`.

    Raises:
        ConfigError: where a degree does not suit the model.
    """
    with torch.device("meta"):
        module = build()
    # The meta device forgets constants; models that keep some are built twice.
    constants = dict(build().named_buffers()) if list(module.buffers()) else {}
    model = cut(module, mesh, config, half)
    module.to_empty(device=mesh.device)
    tie(module, model.tied)  # which the new tensors no longer are
    for name, value in module.named_buffers():
        value.copy_(constants[name])
    if seed is not None:
        parameters = {parameter: name for name, parameter in model.named_parameters()}
        for owner, key, parameter in _places(module):
            if parameter in parameters:  # not yet filled under another name
                fill(parameter, parameters.pop(parameter), model, rule_of(owner, key), seed, start)
    return model


def cut(module: nn.Module, mesh: Mesh, config: ParallelConfig, half: torch.dtype | None = None) -> ParallelModel:
    """Cuts a model on the meta device; in this order: matrices and tokens, pipeline stages, sharding.

    Raises:
        ConfigError: where a degree does not suit the model.
    """
    check_degrees(module, mesh, config)
    plan: ShardingPlan = getattr(module, "plan", None) or ShardingPlan({})
    tied = {name: other for name, other in plan.tied.items() if is_same_parameter(module, name, other)}
    cut_dims, partial_sums = cut_parameters(module, plan, mesh)
    tie(module, tied)
    layout = connect(module, plan, mesh)
    pipeline = None
    blocks = block_list(module, plan.stages)
    if mesh.size(Role.STAGE) > 1:
        mine = [chunk * config.pp + mesh.rank(Role.STAGE) for chunk in range(config.interleave)]
        stages = dict(zip(mine, cut_stages(module, plan.stages, mine, config.num_stages), strict=True))
        pipeline = Pipeline(stages, mesh, config, layout)
        blocks = [block for stage in stages.values() for block in stage.blocks]
    model = ParallelModel(module, mesh, config, cut_dims, frozenset(partial_sums), pipeline, tied, plan.stages.blocks)
    shard_modules(blocks, model.roots, mesh, config.zero, half)
    return model


def check_degrees(model: nn.Module, mesh: Mesh, config: ParallelConfig) -> None:
    """Refuses degrees that do not suit a model.

    Raises:
        ConfigError: naming degrees that do.
    """
    tokens, ring = mesh.size(ULYSSES), mesh.size(RING)
    check_plan(model, matrices=mesh.size(Role.MATRIX), tokens=tokens, ring=ring, stages=config.num_stages)


def is_same_parameter(module: nn.Module, name: str, other: str) -> bool:
    """Says whether two names of a model stand for one parameter."""
    return module.get_parameter(name) is module.get_parameter(other)


def tie(module: nn.Module, tied: Mapping[str, str]) -> None:
    """Lets names stand for the parameters of other names again, where this rank holds both."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, other in tied.items():
        if name in parameters and other in parameters:
            owner, _, key = name.rpartition(".")
            setattr(module.get_submodule(owner), key, parameters[other])


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Yields the modules that own parameters, with the parameters and the names that they give them."""
    for _, module in owners(model):
        for key, parameter in module.named_parameters(recurse=False):
            yield module, key, parameter


@torch.no_grad()
def fill(parameter: nn.Parameter, name: str, model: ParallelModel, rule: Rule, seed: int, start: Start | None) -> None:
    """Gives this rank's part of a parameter its first values: drawn whole, from a generator of its own, and cut."""
    placement = model.placements[name]
    value = torch.empty(placement.shape, dtype=parameter.dtype)
    rule(value, generator_for(seed, name))
    if start is not None:
        value = start(name, value)
    local(parameter).copy_(placement.part(value))
