"""The configuration of the hierarchical multiscale transformer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from domains.fluids.amr.indicators import INDICATORS
from domains.fluids.amr.positions import AXES
from sciml.core.config import one_of
from sciml.core.errors import ConfigError
from sciml.core.types import Fraction, FractionBelowOne, NonNegative
from sciml.models.grid_vit import check_grid_options
from sciml.models.vit import ViTConfig
from sciml.nn.conditioning import WaveEncoding

ENCODINGS = {"lead_time": WaveEncoding(4000.0, 0.4, 16), "cell_size": WaveEncoding(64.0, 4.0, 16)}
"""Features of the lead time (s) and of the binary logarithm of the cell size (m), smooth between two known sizes."""


@dataclass(frozen=True)
class ForestConfig(ViTConfig):
    """Configures a vision transformer whose tokens are those of a forest of patches.

    Tokens of all levels go through one trunk. Patches of ``patch_size`` cover everything; some of them, chosen anew
    for each state, have finer ones besides, and so on.

    Attributes:
        patch_size: cells along a side of the coarsest patches.
        ratios: patches of the next level along a side of a refined one; one number for each finer level. With
            ``patch_size=32``, ``[4, 2]`` makes levels of 32, 8 and 4.
        budgets: the share of a level's patches that is refined, one for each ratio; at most that share where there
            is a ``threshold``.
        condition_on: ``lead_time``, and ``cell_size`` for a model that is to serve several resolutions.
        indicator: what tells where to refine, see :mod:`domains.fluids.amr.indicators`.
        threshold: only patches are refined whose score exceeds this share of the sample's largest; None refines
            as many as the budget allows.
        buffer: patches around one of high score that are refined with it.
        hysteresis: by which part the score of a patch is raised that was refined before.
        balance: whether neighboring patches may differ by one level only.
        coupling: between patches and their finer ones before each block: ``none``, ``one_way`` (to the finer) or
            ``two_way``.
    """

    condition_on: tuple[str, ...] = ("lead_time",)
    position_features: tuple[str, ...] = ("z",)
    rotary_axes: tuple[str, ...] = ("x", "z")
    ratios: tuple[int, ...] = (4,)
    budgets: tuple[Fraction, ...] = (0.25,)
    indicator: str = "hybrid"
    threshold: FractionBelowOne | None = None
    buffer: NonNegative[int] = 0
    hysteresis: NonNegative[float] = 0.0
    balance: bool = False
    coupling: Literal["none", "one_way", "two_way"] = "two_way"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_grid_options(self, "fluids", AXES, ENCODINGS)
        if self.attention != "global":
            raise ConfigError(
                "patches of several sizes lie on no grid that windows could be cut from",
                key="model.attention",
                hint="global, or a model of kind uvit",
            )
        one_of(self.indicator, INDICATORS, "model.indicator")
        self._check_levels()

    def _check_levels(self) -> None:
        if any(ratio < 2 for ratio in self.ratios) or self.patch_size % math.prod(self.ratios or (1,)):
            raise ConfigError(
                f"patches of {self.patch_size} cells cannot be refined by {list(self.ratios)}",
                key="model.ratios",
                hint="use factors of model.patch_size from 2 on, e.g. [4] for 16",
            )
        if len(self.budgets) != len(self.ratios):
            raise ConfigError(
                f"{len(self.budgets)} budgets do not suit {len(self.ratios)} ratios",
                key="model.budgets",
                hint=f"for example {[0.25] * len(self.ratios)}",
            )

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        """Returns the cells along a side of each level's patches, coarsest first."""
        sizes = [self.patch_size]
        for ratio in self.ratios:
            sizes.append(sizes[-1] // ratio)
        return tuple(sizes)

    @property
    def may_vary(self) -> bool:
        """Says whether samples of one shape may have different numbers of tokens."""
        return bool(self.ratios) and (self.threshold is not None or (self.balance and len(self.ratios) > 1))


@dataclass(frozen=True)
class AMRConfig(ForestConfig):
    """Configures a vision transformer on an adaptively refined grid of patches. Without ``ratios`` it is a plain ViT.

    Attributes:
        ghost_cells: cells around a patch that its token sees; beyond the edges they follow the boundary condition.
        edge_filter: width in cells of a learned filter over what the patches have decoded; 0 has none.
    """

    kind: str = "amr"
    ghost_cells: NonNegative[int] = 1
    edge_filter: NonNegative[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.edge_filter and self.edge_filter % 2 == 0:
            raise ConfigError(
                f"a filter of {self.edge_filter} cells has no middle", key="model.edge_filter", hint="5, or 0 for none"
            )
