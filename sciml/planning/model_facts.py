"""Facts of a model from its own build on the meta device, its sharding plan and its task's loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.domain.protocol import LossOutput
from sciml.models.vit import Block
from sciml.nn.window import Pattern
from sciml.parallel.config import ParallelConfig
from sciml.parallel.degrees import check_plan
from sciml.parallel.model import cut
from sciml.parallel.plan import ShardingPlan, Stages, cut_dim, owners
from sciml.parallel.stage import block_list
from sciml.planning.costs import RankProfile
from sciml.planning.degrees import DegreeInterpolation, Degrees
from sciml.planning.eager import eager
from sciml.planning.fake_mesh import fake_mesh
from sciml.planning.fake_tensor import ReadsValuesError, fake_batch, fake_parameters
from sciml.planning.op_meter import EMBED, HEAD
from sciml.planning.parameters import Accounting, ParameterLayout, Parameters
from sciml.planning.pass_profile import PassProfile, profile_pass, tensors_of
from sciml.planning.stage_costs import MEMORY, stage_profile

PROFILED_BLOCKS = 2
"""Blocks of a model whose pass is profiled."""
FEW_TOKENS = 2048
"""Tokens in the smallest batch of text that is profiled."""
TYPICAL, NEXT = "0", "1"
"""The blocks whose memory and whose operations stand for all: what a block leaves for the next counts with the next."""
TIED = "tied"
Patterns = tuple[Pattern, ...]
ATTEND_TO_ALL: Patterns = ("global", "global")
IN_WINDOWS: Patterns = ("window", "shifted")
"""Whom the tokens of the profiled blocks attend to."""
SEARCHED = ("none", "selective", "full")
"""Ways to recompute activations that a search tries; that of attention alone saves little beside fused attention."""
_DTYPES = {"fp32": None, "bf16": torch.bfloat16}


class ModelFacts:
    """Describes a model as a plan sees it.

    Nothing is trained and no parameter has memory. For each way of cutting matrices and tokens a model of two blocks
    is cut as a training would cut it, over a fake mesh, and a micro-batch goes through its task's loss forward and
    backward; operations, memory and messages are counted on the way.

    Args:
        name: for people.
        build: builds the model for one device.
        loss: computes the loss of a batch under a model: ``task.loss``.
        batch: makes a micro-batch of so many typical samples.
        needs_double_backward: whether the loss contains gradients.
        as_accelerator: whether autocast is to be that of an accelerator.
        accounting: bytes that a parameter counts for, where another program than this suite is planned.

    Attributes:
        parameters: number of parameters of the whole model.
        depth: number of blocks that can be spread over pipeline stages; 0 where there are none.
        recomputes: ways in which its blocks can recompute activations.
        recomputing: share of the blocks that recompute activations, where blocks do.
        global_blocks: share of the blocks whose tokens attend to all, where those of others attend within windows.
        batch_bytes: of a sample on the device.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], nn.Module],
        loss: Callable[[nn.Module, Any], LossOutput],
        batch: Callable[[int], Any],
        *,
        needs_double_backward: bool = False,
        as_accelerator: bool = True,
        accounting: Accounting | None = None,
    ) -> None:
        self.name, self._build, self._loss, self._batch = name, build, loss, eager()(batch)
        self.needs_double_backward, self.as_accelerator = needs_double_backward, as_accelerator
        self.accounting = accounting
        self.whole = self.build()
        self.plan: ShardingPlan = getattr(self.whole, "plan", None) or ShardingPlan({})
        self.parameters = sum(parameter.numel() for parameter in self.whole.parameters())
        self.depth = len(block_list(self.whole, self.plan.stages))
        self._small = self._of_few_blocks()
        recomputes = any(isinstance(getattr(module, "recompute", None), str) for module in self.whole.modules())
        self.recomputes: tuple[str, ...] = SEARCHED if recomputes else SEARCHED[:1]
        every = max((int(getattr(module, "recompute_every", 1)) for module in self.whole.modules()), default=1)
        self.recomputing = math.ceil(self.depth / every) / self.depth if self.depth else 1.0
        patterns = [module.pattern for module in self.whole.modules() if isinstance(module, Block)]
        self.global_blocks = patterns.count("global") / len(patterns) if patterns else 1.0
        self.batch_bytes = float(sum(tensor.nbytes for tensor in tensors_of(self._batch(1))))
        # Of graphs, say, shapes depend on what is in a batch; all else is profiled without computing anything.
        self._reads_batches = False
        self._fake_batch = cache(lambda samples: fake_batch(self._batch(samples)))
        # Profiles take long; each is made once.
        self._refusal = cache(self._check)
        self.layout = cache(self._layout)
        self.sample_flops = cache(self._sample_flops)
        self.profile = cache(self._profile)
        self.exact_profile = cache(self._exact_profile)
        self.few_samples = cache(self._few_samples)
        self._pass_profile = cache(self._profile_pass)

    @cached_property
    def blocks_alike(self) -> bool:
        """Says whether all blocks have parameters of the same shapes, and the same are frozen."""
        return len({_shapes(block) for block in block_list(self.whole, self.plan.stages)}) <= 1

    def build(self) -> nn.Module:
        """Builds the model for one device, on the meta device."""
        with eager(), torch.device("meta"):
            return self._build()

    def check(self, *, tp: int, sp: int, stages: int, cp: int = 1) -> None:
        """Refuses degrees that cannot cut the model, naming some that can."""
        for degrees in ((tp, sp, cp, 1), (1, 1, 1, stages)):
            refusal = self._refusal(*degrees)
            if refusal is not None:
                raise ConfigError(refusal.message, key=refusal.key, hint=refusal.hint)

    def _check(self, tp: int, sp: int, cp: int, stages: int) -> ConfigError | None:
        try:
            # Blocks are alike: few tell which degrees cut matrices and tokens.
            model = self._small if stages == 1 and cp == 1 else self.whole  # which alone tells of all its patterns
            check_plan(model, matrices=tp, tokens=sp, ring=cp, stages=stages)
        except ConfigError as error:
            return error
        return None

    @property
    def tokens(self) -> int | None:
        """Returns the number of tokens of a sample; None where blocks see none."""
        activations = self._any_pass.stage_activations
        tokens = activations[0].shape if activations and activations[0].ndim == 3 else None
        return None if tokens is None else tokens[0] * tokens[1]  # of all tiles, where a sample has several

    @property
    def calls(self) -> int:
        """Returns how often a loss applies the model."""
        return self._any_pass.calls

    @property
    def loss_parts(self) -> int:
        """Returns the number of named parts of the loss, which are averaged over ranks."""
        return self._any_pass.loss_parts

    @property
    def _any_pass(self) -> PassProfile:
        """Returns a pass from which to read what is the same in all passes."""
        return self._pass_profile(Degrees(), "bf16", "none", 1, self._patterns()[0][0])

    def _sample_flops(self, recompute: str = "none") -> tuple[float, float]:
        """Returns the FLOPs of a forward and of a backward pass of the whole model over a sample."""
        stages = self.profile(1, 1, "bf16", recompute).stages(1, self.depth, 1)
        forward = sum(stage.forward.flops(1) * times for stage, times in stages)
        return forward, sum(stage.backward.flops(1) * times for stage, times in stages)

    def attention_flops(self) -> float:
        """Returns the FLOPs of attention in the forward pass over a sample."""
        blocks = min(self.depth, PROFILED_BLOCKS)
        passes = {pattern: self._pass_profile(Degrees(), "bf16", "none", 1, pattern) for pattern, _ in self._patterns()}
        flops = sum(passes[pattern].attention * share for pattern, share in self._patterns())
        return flops * self.depth / blocks if blocks else flops

    def _patterns(self) -> list[tuple[Patterns, float]]:
        """Returns whom the tokens of the profiled blocks attend to, and the share of the blocks that are like these;
        the dearest first.
        """
        share = self.global_blocks
        return [(pattern, part) for pattern, part in ((ATTEND_TO_ALL, share), (IN_WINDOWS, 1 - share)) if part]

    def cut_parameters(self) -> int:
        """Counts the parameters that are cut over ``tp``."""
        styles = self.plan.styles(self.whole) if self.plan.rules else {}
        cut = {
            parameter
            for name, module in owners(self.whole)
            for key, parameter in module.named_parameters(recurse=False)
            if name in styles and cut_dim(styles[name], key) is not None
        }
        return sum(parameter.numel() for parameter in cut)

    def _profile(self, tp: int, sp: int, precision: str, recompute: str, cp: int = 1) -> RankProfile:
        """Profiles a rank on which as many blocks as the model says compute activations again."""
        profile = self._uniform_profile(Degrees(tp, sp, cp), precision, recompute)
        if recompute == "none" or self.recomputing == 1:
            return profile
        rest = self.profile(tp, sp, precision, "none", cp)
        return replace(profile, block=profile.block.mixed(rest.block, self.recomputing))

    def _uniform_profile(self, degrees: Degrees, precision: str, recompute: str) -> RankProfile:
        """Profiles a rank, interpolating between small degrees where these can cut the model."""
        half = "bf16" if precision == "fp16" else precision  # both take the same memory and operations
        interpolation = self._interpolation(degrees)
        if interpolation is None:
            return self.exact_profile(degrees, half, recompute)
        return interpolation.profile(lambda small: self.exact_profile(small, half, recompute))

    def _interpolation(self, degrees: Degrees) -> DegreeInterpolation | None:
        """Returns the interpolation between small degrees; None where these cannot cut the model."""
        base = Degrees(*(min((d for d in range(2, n + 1) if n % d == 0), default=2) for n in degrees))
        try:
            tp, sp, _ = (small if degree > 1 else 1 for small, degree in zip(base, degrees, strict=True))
            self.check(tp=tp, sp=sp, stages=1)
        except ConfigError:
            return None
        return DegreeInterpolation(degrees, base)

    def _exact_profile(self, degrees: Degrees, precision: str, recompute: str) -> RankProfile:
        """Profiles a rank by passes with these very degrees; its block is the mean of blocks that attend differently.

        A stage of a pipeline may have more of the dear ones than its share.
        """
        profile, *others = [
            self._profile_of_pattern(degrees, precision, recompute, pattern) for pattern, _ in self._patterns()
        ]
        return replace(profile, block=profile.block.mixed(others[0].block, self.global_blocks)) if others else profile

    def _profile_of_pattern(self, degrees: Degrees, precision: str, recompute: str, pattern: Patterns) -> RankProfile:
        """Profiles a rank by passes of few samples and of twice as many."""
        few = self.few_samples()
        one, two = (self._pass_profile(degrees, precision, recompute, samples, pattern) for samples in (few, 2 * few))
        embed, block, head = (stage_profile(one, two, few, stage) for stage in (EMBED, TYPICAL, HEAD))
        if self.depth > 1:
            # A backward pass comes to what the embedding computes besides tokens before it is through with block 0.
            operations = stage_profile(one, two, few, NEXT)
            early = block.backward + operations.backward * -1
            embed = replace(embed, backward=embed.backward + early)
            memory = {name: getattr(block, name) for name in MEMORY}
            block = replace(operations, **memory)
        return RankProfile(embed, block, head, tuple(tensor.nbytes / few for tensor in one.stage_activations))

    def _few_samples(self) -> int:
        """Returns the samples of the smaller pass: of text enough that not all logits stand at once in either."""
        tensors = list(tensors_of(self._batch(1)))
        if not tensors or any(tensor.is_floating_point() for tensor in tensors):
            return 1
        return max(1, math.ceil(FEW_TOKENS / max(tensor.numel() for tensor in tensors)))

    def _layout(self, tp: int) -> ParameterLayout:
        """Lists the parameters on one rank of ``tp`` by stage."""
        alike = self.blocks_alike
        with fake_mesh({"tp": tp}) as mesh:
            part = cut(deepcopy(self._small) if alike else self.build(), mesh, ParallelConfig(tp=tp))
            rows: dict[str, list[tuple[tuple[int, ...], bool, int | None, bool]]] = {}
            for name, parameter in part.named_parameters():
                cut_dim_of, learns = part.cut_dims.get(name), parameter.requires_grad
                row = tuple(parameter.shape), name in part.partial_sums, cut_dim_of, learns
                rows.setdefault(_stage_of(name, self.plan.stages), []).append(row)
                if name in part.tied.values():
                    rows.setdefault(TIED, []).append(row)
        groups = {stage: Parameters(*zip(*own, strict=True)) for stage, own in rows.items()}
        same = {group: group for group in groups.values()}  # equal blocks are one, so that sums are made once
        groups = {stage: same[group] for stage, group in groups.items()}
        blocks = tuple(groups[TYPICAL if alike else str(number)] for number in range(self.depth))
        embed, head, tied = (groups.get(stage, Parameters()) for stage in (EMBED, HEAD, TIED))
        return ParameterLayout(embed, blocks, head, tied)

    def _profile_pass(
        self, degrees: Degrees, precision: str, recompute: str, samples: int, pattern: Patterns
    ) -> PassProfile:
        if not self._reads_batches:
            try:
                return self._profile_batch(degrees, precision, recompute, pattern, self._fake_batch(samples))
            except ReadsValuesError:
                self._reads_batches = True
        return self._profile_batch(degrees, precision, recompute, pattern, self._batch(samples))

    def _profile_batch(
        self, degrees: Degrees, precision: str, recompute: str, pattern: Patterns, batch: Any
    ) -> PassProfile:
        with eager(), self._few_blocks(degrees, recompute, pattern) as (model, blocks, mesh):
            dtype = _DTYPES[precision]
            ways = {"as_accelerator": self.as_accelerator, "reads_values": self._reads_batches}
            return profile_pass(self._loss, model, blocks, batch, mesh, dtype, **ways)

    def _of_few_blocks(self) -> nn.Module:
        """Copies the model with its last blocks alone."""
        blocks = block_list(self.whole, self.plan.stages)
        if self.plan.stages.blocks is None:
            return self.whole
        few = deepcopy(nn.ModuleList(blocks[-PROFILED_BLOCKS:]))
        return deepcopy(self.whole, {id(self.whole.get_submodule(self.plan.stages.blocks)): few})

    @contextmanager
    def _few_blocks(
        self, degrees: Degrees, recompute: str, pattern: Patterns
    ) -> Iterator[tuple[nn.Module, Sequence[nn.Module], Mesh]]:
        """Opens a model of the last blocks alone, cut as a training would cut it, with its blocks and its mesh."""
        model = deepcopy(self._small)
        for block, own in zip((m for m in model.modules() if isinstance(m, Block)), pattern, strict=False):
            block.pattern = own
        for module in model.modules():
            if isinstance(getattr(module, "recompute", None), str):
                module.recompute = recompute  # type: ignore[assignment]
        with fake_mesh(degrees._asdict()) as mesh:
            cut(model, mesh, ParallelConfig(**degrees._asdict()))
            fake_parameters(model)
            yield model.train(), block_list(model, self.plan.stages), mesh


def _shapes(module: nn.Module) -> tuple[tuple[tuple[int, ...], bool], ...]:
    """Returns the shapes of parameters, and which are trained."""
    return tuple((tuple(parameter.shape), parameter.requires_grad) for parameter in module.parameters())


def _stage_of(name: str, stages: Stages) -> str:
    """Returns the stage that a parameter belongs to: ``embed``, a block by its number, or ``head``."""
    if stages.blocks is not None and name.startswith(f"{stages.blocks}."):
        return name.removeprefix(f"{stages.blocks}.").partition(".")[0]
    is_head = any(name == module or name.startswith(f"{module}.") for module in stages.last)
    return HEAD if is_head else EMBED
