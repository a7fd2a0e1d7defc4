"""Holds the keys that users may set about what a flow model learns and how it is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import MinLen

from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, NonNegative


@dataclass(frozen=True)
class FluidsTaskConfig:
    """Says what is forecast.

    Attributes:
        strides: frames that one step of the model goes over; one is drawn for each training sample.
        score_frames: frames ahead at which forecasts are scored; rolled out by the longest stride that divides them.
        pushforward: up to so many steps from the model's own states before the one that is learned; no gradient
            flows through them.
        noise: added to states in training, in standard deviations of each variable's increments.
        resample: whether states on another grid than that of the training go through that grid; else the model is
            applied to them as they are.
        conserve: variables whose mean over the plane a step must not change, as the density of miniWeather; ``auto``
            is that of density between closed sides. Flows into which something is blown are left as they are.
        baseline: what the network corrects: ``propagator``, a step that is fitted to the training flows by least
            squares (:mod:`domains.fluids.propagator`); ``none``, the state itself. ``auto`` is the first, but for
            models that correct a solver, and what a run that weights are taken from had.
        unroll: successive steps from the model's own states that are learned together; gradients flow through them,
            and each step is computed anew in the backward pass.

    Source of pushforward: Brandstetter et al. (2022), https://doi.org/10.48550/arXiv.2202.03376.
    """

    practical: ClassVar[tuple[str, ...]] = ("score_frames",)

    strides: Annotated[list[AtLeastOne], MinLen(1)] = field(default_factory=lambda: [1])
    score_frames: Annotated[list[AtLeastOne], MinLen(1)] = field(default_factory=lambda: [1, 5, 10])
    pushforward: NonNegative[int] = 0
    noise: NonNegative[float] = 0.0
    resample: bool = True
    conserve: list[str] = field(default_factory=list)
    baseline: Literal["auto", "propagator", "none"] = "none"
    unroll: AtLeastOne = 1

    def __post_init__(self) -> None:
        if not any(all(frames % stride == 0 for frames in self.score_frames) for stride in self.strides):
            raise ConfigError(
                f"no stride of {self.strides} divides them all", key="task.score_frames", hint=f"e.g. {self.strides}"
            )

    @property
    def scoring_stride(self) -> int:
        """Returns the longest stride by which all scored frames are reached."""
        return max(s for s in self.strides if all(frames % s == 0 for frames in self.score_frames))
