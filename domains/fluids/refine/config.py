"""The configuration of a solver on a coarse grid whose steps a transformer corrects."""

from __future__ import annotations

from dataclasses import dataclass

from domains.fluids.amr.config import ForestConfig
from sciml.core.config import divides
from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne
from sciml.models.uvit import UViTConfig


@dataclass(frozen=True)
class RefineConfig(UViTConfig, ForestConfig):
    """Configures a solver on a coarse grid, and the transformer between convolutions that corrects its steps.

    Attributes:
        coarsen: cells along each axis of one cell of the solver's grid, a power of two; 1 is the solver itself.
        carry_detail: whether what the coarse grid does not hold goes with the wind; else it is forgotten at each step.
        compile_solver: whether the solver's stages are compiled, which takes half a minute when a run begins and makes
            them two to three times as fast.
    """

    kind: str = "refine"
    coarsen: AtLeastOne = 2
    carry_detail: bool = True
    compile_solver: bool = False
    condition_on: tuple[str, ...] = ("lead_time",)
    position_features: tuple[str, ...] = ("z",)
    rotary_axes: tuple[str, ...] = ("x", "z")
    ratios: tuple[int, ...] = (2,)
    indicator: str = "residual"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coarsen & (self.coarsen - 1):
            raise ConfigError(f"must be a power of two, got {self.coarsen}", key="model.coarsen", hint="2 or 4")
        if self.tiles:
            raise ConfigError("the patches of this model lie in no tiles", key="model.tiles", hint="use []")
        divides(self.square, self.patch_sizes[-1], key="model.square", of="the finest patches' cells")
