"""The flow model: a hierarchical multiscale transformer on adaptively refined patches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from domains.fluids.amr.config import AMRConfig
from domains.fluids.amr.coupling import CoupledBlock
from domains.fluids.amr.forest import Forest, PatchGeometry
from domains.fluids.amr.head import Head
from domains.fluids.amr.indicator_inputs import IndicatorInputs
from domains.fluids.amr.indicators import INDICATORS, Indicator, LearnedIndicator
from domains.fluids.amr.merge import Merge
from domains.fluids.amr.patch_edges import SeamFilter
from domains.fluids.amr.positions import patch_angles
from domains.fluids.amr.refinement import grow
from domains.fluids.amr.token_shard import Place, TokenShard
from domains.fluids.amr.tokens import Tokenizer
from domains.fluids.data.boundary import Boundary
from sciml.models.vit import ViT
from sciml.nn.conditioning import ConditionEmbedding, scalar_features
from sciml.nn.initialization import initialize
from sciml.nn.position import fourier_features, sphere_rotary
from sciml.nn.staged import Flow, ForwardPass
from sciml.parallel.plan import AllGather, AllReduce, AllToAll, Scatter, ShardingPlan, Stages, Style

FEATURES = 16
"""Of each scalar that the blocks are modulated by."""
LEAD_WAVELENGTHS_S = (4000.0, 0.4)
CELL_WAVELENGTHS = (64.0, 4.0)
"""In doublings of the cell size: what lies between two known sizes is smooth."""


class AMRViT(nn.Module):
    """From a normalized state of a flow to its normalized increment over a lead time.

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

    plan: ClassVar[ShardingPlan] = ViT.plan.within("trunk") | ShardingPlan(
        {
            "tokenizer.*": Style.REPLICATE_PARTIAL_GRAD,
            "position": Style.REPLICATE_PARTIAL_GRAD,
            "condition.*": Style.REPLICATE_PARTIAL_GRAD,
            "indicator.*": Style.REPLICATE_PARTIAL_GRAD,
            "trunk.blocks.*.coupling.*": Style.REPLICATE_PARTIAL_GRAD,
            "head.hidden.*": Style.COLUMN,
            "head.project.*": Style.REPLICATE_PARTIAL_GRAD,
            "merge.*": Style.REPLICATE_PARTIAL_GRAD,
        },
        inputs={
            "own": (Scatter(dim=0, axes=("sp", "tp")),),
            "trunk.blocks.*.coupling.whole": (AllGather(axes=("sp", "tp")),),
            "head.hidden.*": (AllGather(),),
        },
        outputs={"head.hidden.*": AllToAll(), "merge": AllReduce()},
        stages=Stages(first=("tokenizer", "position", "condition"), last=("head", "merge")),
    )

    def __init__(self, config: AMRConfig, channels: Sequence[str]) -> None:
        super().__init__()
        self.config, self.channels = config, tuple(channels)
        dim, axes = config.embed_dim, config.position_features
        self.own = Place()
        self.indicator = LearnedIndicator() if config.indicator == "learned" else None
        self.tokenizer = Tokenizer(self.channels, config.patch_sizes, config.ghost_cells, dim)
        self.position = nn.Linear(2 * len(axes) * config.position_harmonics, dim, bias=False) if axes else None
        self.condition = (
            ConditionEmbedding(FEATURES * len(config.condition_on), config.condition_dim)
            if config.is_conditioned
            else None
        )
        self.trunk = ViT(config, CoupledBlock)  # type: ignore[arg-type]
        self.head = Head(self.channels, config, config.patch_sizes)
        self.merge = Merge(SeamFilter(self.channels, config.seam_filter) if config.seam_filter else None)
        initialize(self, torch.initial_seed())

    def variable_rows(self) -> dict[str, tuple[str, ...]]:
        """Parameters whose first dim is a block of rows for each variable, with the variables' names.

        A model of other variables takes over the rows of those that it shares.
        """
        names = [f"tokenizer.{level}.weight" for level in range(len(self.tokenizer))]
        names += [f"head.project.{level}.{key}" for level in range(len(self.tokenizer)) for key in ("weight", "bias")]
        names += ["merge.seams.weight"] * (self.merge.seams is not None)
        return dict.fromkeys(names, self.channels)

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "batch output z x"]:
        """Normalized increments, float32 (or the weights' precision where that is higher).

        Takes what :meth:`forward_pass` takes.
        """
        return self.forward_pass(*args, **kwargs).run(self.trunk.blocks)

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
        """The way from a state to its normalized increment, in parts.

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
        axes, config = self.config.rotary_axes, self.config
        rotary = sphere_rotary(angles, axes, config.head_dim, config.rotary_max_harmonic) if axes else None

        def begin() -> Flow:
            tokens = self.tokenizer(evidence, forest, share)
            if self.position is not None:
                features = fourier_features(angles, config.position_features, config.position_harmonics)
                tokens = tokens + self.position(share.of(features).to(self.position.weight.dtype))
            condition = self.embed_condition(lead_time, cell_size)
            return (tokens,) if condition is None else (tokens, condition)

        def end(tokens: Tensor, condition: Tensor | None = None) -> Tensor:
            tokens = self.trunk.finish(tokens, condition)
            cells = self.head(tokens, forest, share, outputs)
            return self.merge(cells, forest, share, outputs, evidence.boundaries)

        context = (rotary, forest.mask, forest, share)
        return ForwardPass(begin, end, context if config.is_conditioned else (None, *context))

    def evidence(
        self,
        fields: Float[Tensor, "batch channel z x"],
        channel_names: Sequence[str] | None,
        boundary: Boundary | Sequence[Boundary],
        previous: Float[Tensor, "batch channel z x"] | None = None,
        truth: Float[Tensor, "batch channel z x"] | None = None,
    ) -> IndicatorInputs:
        """What a step is made from; arguments as in :meth:`forward_pass`."""
        boundaries = (boundary,) * len(fields) if isinstance(boundary, Boundary) else tuple(boundary)
        return IndicatorInputs(fields, tuple(channel_names or self.channels), boundaries, previous, truth)

    def forest(self, evidence: IndicatorInputs, before: Forest | None = None) -> Forest:
        """Where to refine."""
        geometry = PatchGeometry(tuple(evidence.fields.shape[2:]), self.config.patch_sizes)
        indicator: Indicator | None = self.indicator or INDICATORS[self.config.indicator]
        assert indicator is not None

        def score(level: int) -> Float[Tensor, "batch node"]:
            with torch.no_grad() if self.indicator is None else nullcontext():
                return indicator(evidence, geometry, level)

        return grow(self.config, geometry, score, evidence.periodic, before, trim=not self.training)

    def embed_condition(
        self, lead_time: Float[Tensor, "batch"], cell_size: Float[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch condition"] | None:
        """The vector that modulates every block, or None where the model is not conditioned."""
        if self.condition is None:
            return None
        features = []
        for name in self.config.condition_on:
            if name == "lead_time":
                features.append(scalar_features(lead_time, *LEAD_WAVELENGTHS_S, FEATURES))
            else:
                assert cell_size is not None
                features.append(scalar_features(cell_size.log2(), *CELL_WAVELENGTHS, FEATURES))
        return self.condition(torch.cat(features, dim=1).to(self.condition.first.weight.dtype))
