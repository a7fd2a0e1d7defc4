"""The flow model: a hierarchical multiscale transformer on adaptively refined patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.amr.config import ENCODINGS, AMRConfig
from domains.fluids.amr.coupling import CoupledBlock
from domains.fluids.amr.forest import Forest
from domains.fluids.amr.head import CellHead
from domains.fluids.amr.indicator_inputs import IndicatorInputs
from domains.fluids.amr.indicators import LearnedIndicator
from domains.fluids.amr.merge import Merge
from domains.fluids.amr.patch_edges import PatchEdgeFilter
from domains.fluids.amr.positions import patch_angles
from domains.fluids.amr.refinement import grow_forest
from domains.fluids.amr.token_shard import TokenShard
from domains.fluids.amr.tokens import Tokenizer
from domains.fluids.data.boundary import Boundary
from sciml.distributed.axes import Role
from sciml.models.grid_vit import GridViT
from sciml.nn.initialization import initialize
from sciml.nn.staged import ForwardPass, Place
from sciml.parallel.plan import AllGather, AllReduce, Scatter, ShardingPlan, Stages, Style


class AMRViT(GridViT):
    """Maps a normalized state of a flow to its normalized increment over a lead time.

    Where to look closely is decided from the state (see :mod:`domains.fluids.amr.refinement`). Tokens of all levels
    attend to one another in the blocks of the shared ViT; before each block a patch and its children exchange what
    they know; in the end finer patches add detail to coarser ones without changing their means. An untrained model
    returns exactly zero, that is persistence.

    Positions are functions of the place in the domain: the same weights take any grid. With ``position_features=[z]``
    a state that is moved along a periodic x by whole patches of the coarsest level has a forecast moved with it.

    Args:
        config: sizes and options.
        channels: names of all variables of all data sets that it is to serve; a batch may have any of them.
    """

    plan: ClassVar[ShardingPlan] = GridViT.plan | ShardingPlan(
        {
            "tokenizer.*": Style.REPLICATE_PARTIAL_GRAD,
            "indicator.*": Style.REPLICATE_PARTIAL_GRAD,
            "trunk.blocks.*.coupling.*": Style.REPLICATE_PARTIAL_GRAD,
            "head.project.*": Style.REPLICATE_PARTIAL_GRAD,
            "merge.*": Style.REPLICATE_PARTIAL_GRAD,
        },
        inputs={
            "own": (Scatter(dim=0, axes=(Role.TOKEN, Role.MATRIX)),),
            "trunk.blocks.*.coupling.whole": (AllGather(axes=(Role.TOKEN, Role.MATRIX)),),
        },
        outputs={"merge": AllReduce()},
        stages=Stages(last=("merge",)),
    )
    config: AMRConfig
    tokenizer: Tokenizer
    head: CellHead

    def __init__(self, config: AMRConfig, channels: Sequence[str]) -> None:
        tokenizer = Tokenizer(channels, config.patch_sizes, config.ghost_cells, config.embed_dim)
        head = CellHead(channels, config, config.patch_sizes)
        super().__init__(config, tokenizer, head, ENCODINGS, CoupledBlock)
        self.channels = tuple(channels)
        self.own = Place()
        self.indicator = LearnedIndicator() if config.indicator == "learned" else None
        self.merge = Merge(PatchEdgeFilter(self.channels, config.edge_filter) if config.edge_filter else None)
        initialize(self, torch.initial_seed())

    def variable_rows(self) -> dict[str, tuple[str, ...]]:
        """Returns the parameters whose first dim is a block of rows for each variable, with the variables' names.

        A model of other variables takes over the rows of those that it shares.
        """
        names = [f"tokenizer.{level}.weight" for level in range(len(self.tokenizer))]
        names += [f"head.project.{level}.{key}" for level in range(len(self.tokenizer)) for key in ("weight", "bias")]
        names += ["merge.edge_filter.weight"] * (self.merge.edge_filter is not None)
        return dict.fromkeys(names, self.channels)

    def forward_pass(
        self,
        fields: Float[Tensor, "batch channel z x"],
        channel_names: Sequence[str] | None,
        lead_time: Float[Tensor, "batch"],
        boundary: Boundary | Sequence[Boundary],
        *,
        cell_size: Float[Tensor, "batch"] | None = None,
        previous: Float[Tensor, "batch channel z x"] | None = None,
        truth: Float[Tensor, "batch channel z x"] | None = None,
        before: Forest | None = None,
        forest: Forest | None = None,
        output_names: Sequence[str] | None = None,
    ) -> ForwardPass:
        """Returns the way from a state to its normalized increment, in parts.

        Args:
            fields: normalized state, of any size.
            channel_names: its variables, any of the model's in any order; None for all.
            lead_time: seconds to step over.
            boundary: of all samples, or of each.
            cell_size: m; needed by a model that is conditioned on it.
            previous: the normalized state one frame before, for ``increment`` and ``hybrid``.
            truth: the normalized state to come, for ``oracle``.
            before: the forest of the last step of a rollout, for hysteresis.
            forest: where to refine, if that is decided already (by :meth:`forest`).
            output_names: variables wanted; by default those of ``fields``.
        """
        evidence = self.evidence(fields, channel_names, boundary, previous, truth)
        forest = forest or self.forest(evidence, before)
        share = TokenShard.of_numbers(self.own(torch.arange(1, forest.num_tokens + 1, device="cpu")))
        outputs = tuple(output_names or evidence.channels)
        angles = patch_angles(forest, evidence.periodic)
        scalars = {"lead_time": lead_time}
        if cell_size is not None:
            scalars["cell_size"] = cell_size.log2()

        def embed() -> Float[Tensor, "batch token embed"]:
            tokens = self.tokenizer(evidence, forest, share)
            return tokens if self.position is None else tokens + self.position(share.of(self.position_features(angles)))

        def decode(tokens: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch output z x"]:
            return self.merge(self.head(tokens, forest, share, outputs), forest, share, outputs, evidence.boundaries)

        return self.staged(embed, scalars, decode, self.rotary(angles), forest.mask, forest, share)

    def evidence(
        self,
        fields: Float[Tensor, "batch channel z x"],
        channel_names: Sequence[str] | None,
        boundary: Boundary | Sequence[Boundary],
        previous: Float[Tensor, "batch channel z x"] | None = None,
        truth: Float[Tensor, "batch channel z x"] | None = None,
    ) -> IndicatorInputs:
        """Collects what a step is made from; arguments as in :meth:`forward_pass`."""
        boundaries = (boundary,) * len(fields) if isinstance(boundary, Boundary) else tuple(boundary)
        return IndicatorInputs(fields, tuple(channel_names or self.channels), boundaries, previous, truth)

    def forest(self, evidence: IndicatorInputs, before: Forest | None = None) -> Forest:
        """Decides where to refine."""
        return grow_forest(self.config, evidence, self.indicator, before, trim=not self.training)
