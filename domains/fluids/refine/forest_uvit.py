"""The transformer between convolutions whose tokens are those of a forest of patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from domains.fluids.amr.coupling import CoupledBlock
from domains.fluids.amr.forest import Forest
from domains.fluids.amr.positions import patch_angles
from domains.fluids.amr.token_shard import TokenShard
from domains.fluids.refine.config import RefineConfig
from sciml.distributed.axes import Role
from sciml.models.field_model import FieldInputs, Variables
from sciml.models.uvit import UViT
from sciml.models.vit import ViT
from sciml.nn.convolution import Coarsen, Refine
from sciml.nn.position import coordinate_rotary
from sciml.nn.staged import Activations, ForwardPass, Place
from sciml.parallel.plan import AllGather, Average, CopyToRegion, Scatter, ShardingPlan, Stages, Style


class ForestUViT(UViT):
    """Maps fields to fields as :class:`UViT` does, with tokens of finer patches where a forest has them.

    Finer tokens are made of the same features as the coarse ones, and add to the features that leave the trunk. Without
    finer levels it is the plain model.
    """

    plan: ClassVar[ShardingPlan] = UViT.plan | ShardingPlan(
        {
            **dict.fromkeys(("coarsen_finer.*", "refine_finer.*"), Style.REPLICATE_PARTIAL_GRAD),
            "trunk.blocks.*.coupling.*": Style.REPLICATE_PARTIAL_GRAD,
        },
        inputs={
            "stem": (CopyToRegion(axes=(Role.TOKEN, Role.MATRIX)),),
            "numbers": (Scatter(dim=0, axes=(Role.TOKEN, Role.MATRIX)),),
            "trunk.blocks.*.coupling.whole": (AllGather(axes=(Role.TOKEN, Role.MATRIX)),),
        },
        outputs={"head": Average()},  # all ranks work on all rows, as finer patches lie anywhere
        stages=Stages(first=("coarsen_finer",), last=("refine_finer",)),
    )
    config: RefineConfig

    def __init__(self, config: RefineConfig, variables: Variables) -> None:
        super().__init__(config, variables)
        self.trunk = ViT(config, CoupledBlock)
        self.numbers = Place()
        width, embed = config.conv_width, config.embed_dim
        factors = [size // config.square for size in config.patch_sizes[1:]]
        self.coarsen_finer = nn.ModuleList(Coarsen(width, embed, factor) for factor in factors)
        self.refine_finer = nn.ModuleList(Refine(embed, width, factor) for factor in factors)

    def forest_pass(self, inputs: FieldInputs, forest: Forest, periodic: Bool[Tensor, "batch axis"]) -> ForwardPass:
        """Returns the way from fields to fields over the tokens of a forest, which can be cut between blocks.

        Args:
            periodic: of every sample, along which axes its ends meet.
        """
        config = self.config
        share = TokenShard.of_numbers(self.numbers(torch.arange(1, forest.num_tokens + 1, device="cpu")))

        def embed() -> Activations:
            condition = self.embed_condition(inputs)
            features = self.embed_fields(inputs)
            for block in self.down:
                features = block(features, condition, inputs.topology)
            coarse = self.coarsen(features)
            for block in self.enter:
                coarse = block(coarse, condition, inputs.topology)
            tokens = [coarse.flatten(2).transpose(1, 2)]
            for level, coarsen in zip(forest.levels[1:], self.coarsen_finer, strict=True):
                tokens.append(_chosen(coarsen(features).flatten(2).transpose(1, 2), level.nodes))
            first = self.own(torch.cat(tokens, dim=1))
            return (first, features) if condition is None else (first, condition, features)

        def head(
            tokens: Float[Tensor, "batch token embed"], *rest: Float[Tensor, "batch ..."]
        ) -> Float[Tensor, "batch output row column"]:
            *conditions, features = rest
            condition = conditions[0] if conditions else None
            levels = self.whole(self.trunk.finish(tokens, condition)).split([v.num_tokens for v in forest.levels], 1)
            coarse = levels[0].transpose(1, 2).unflatten(2, forest.geometry.shape(0))
            for block in self.leave:
                coarse = block(coarse, condition, inputs.topology)
            left = self.refine(coarse) + self._finer(levels[1:], forest)
            features = self.merge(torch.cat([left, features], dim=1), inputs.topology)
            for block in self.up:
                features = block(features, condition, inputs.topology)
            return self.decode(F.gelu(self.norm(features, inputs.topology)), inputs)

        rotary = None
        if config.rotary_axes:
            angles = patch_angles(forest, periodic)
            rotary = coordinate_rotary(angles, config.rotary_axes, config.head_dim, config.rotary_max_harmonic)
        context = (rotary, forest.mask, forest, share)
        return ForwardPass(embed, head, context if config.is_conditioned else (None, *context), carried=1)

    def _finer(
        self, levels: Sequence[Float[Tensor, "batch token embed"]], forest: Forest
    ) -> Float[Tensor, "batch feature _row _column"] | float:
        """Returns what the tokens of finer patches add to the features; nothing where there are no such patches."""
        added: Tensor | float = 0.0
        for index, (tokens, refine) in enumerate(zip(levels, self.refine_finer, strict=True), start=1):
            parents, children = forest.levels[index - 1], forest.geometry.num_children(index - 1)
            for weight in (parents.refines, parents.gates):
                if weight is not None:
                    tokens = tokens * weight.repeat_interleave(children, dim=1)[..., None].to(tokens.dtype)
            nodes = forest.levels[index].nodes[..., None].expand_as(tokens)
            complete = tokens.new_zeros(len(tokens), forest.geometry.num_nodes(index), tokens.shape[2])
            complete = complete.scatter_add(1, nodes, tokens)
            added = added + refine(complete.transpose(1, 2).unflatten(2, forest.geometry.shape(index)))
        return added


def _chosen(
    tokens: Shaped[Tensor, "batch node embed"], nodes: Int[Tensor, "batch token"]
) -> Shaped[Tensor, "batch token embed"]:
    return tokens.gather(1, nodes[..., None].expand(-1, -1, tokens.shape[2]))
