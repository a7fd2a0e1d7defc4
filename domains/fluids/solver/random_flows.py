"""Random flows: miniWeather's cases with other places, sizes, strengths and winds, and mixtures of bubbles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from domains.fluids.solver.background import SURFACE_THETA
from domains.fluids.solver.cases import CASES, Bubble, Flow, Jet
from domains.fluids.solver.grid import HEIGHT_M, LENGTH_M
from sciml.core.seeding import seed_of

MIXED = "mixed"
"""Warm and cold bubbles at any place, in neutral air."""
DRAWN_CASES = (*CASES, MIXED)
MIXED_BUBBLES = (2, 4)
MIXED_AMPLITUDE = (3.0, 20.0)
MIXED_RADIUS = (1000.0, 3000.0)


@dataclass(frozen=True)
class Spread:
    """Says how far flows are from the case they belong to.

    Attributes:
        amplitude: smallest and largest factor of bubbles, forcing, and the jet's speed and coldness.
        radius: smallest and largest factor of radii.
        displacement: largest of each bubble along x and z, m.
        wind: largest that is added along x, m/s.
    """

    amplitude: tuple[float, float]
    radius: tuple[float, float]
    displacement: float
    wind: float


def draw(case: str, spread: Spread, seed: int, index: int) -> Flow:
    """Draws the flow of a number; the same at any time and place.

    All bubbles of a flow are moved along x together, to anywhere, and then a little from one another, which breaks the
    cases' mirror symmetry.
    """
    rng = np.random.default_rng(seed_of(seed, "flow", index))
    return _Draw(rng, spread).flow(_mixed(rng) if case == MIXED else CASES[case])


def _mixed(rng: np.random.Generator) -> Flow:
    count = int(rng.integers(MIXED_BUBBLES[0], MIXED_BUBBLES[1] + 1))
    bubbles = [
        Bubble(
            float(rng.choice([-1, 1]) * rng.uniform(*MIXED_AMPLITUDE)),
            float(rng.uniform(0, LENGTH_M)),
            float(rng.uniform(0, HEIGHT_M)),
            *map(float, rng.uniform(*MIXED_RADIUS, size=2)),
        )
        for _ in range(count)
    ]
    return Flow(MIXED, tuple(bubbles))


class _Draw:
    def __init__(self, rng: np.random.Generator, spread: Spread) -> None:
        self.rng, self.spread = rng, spread
        self.shift = rng.uniform(0, LENGTH_M)

    def flow(self, flow: Flow) -> Flow:
        return replace(
            flow,
            bubbles=tuple(map(self.bubble, flow.bubbles)),
            wind=flow.wind + float(self.rng.uniform(-1, 1) * self.spread.wind),
            forcing=self.bubble(flow.forcing) if flow.forcing else None,
            jet=self.jet(flow.jet) if flow.jet else None,
        )

    def bubble(self, bubble: Bubble) -> Bubble:
        return Bubble(
            bubble.amplitude * self.factor(self.spread.amplitude),
            float((bubble.x + self.shift + self.move()) % LENGTH_M),
            float(np.clip(bubble.z + self.move(), 0, HEIGHT_M)),
            bubble.radius_x * self.factor(self.spread.radius),
            bubble.radius_z * self.factor(self.spread.radius),
        )

    def jet(self, jet: Jet) -> Jet:
        strength = self.factor(self.spread.amplitude)
        return Jet(
            jet.speed * strength,
            SURFACE_THETA + (jet.theta - SURFACE_THETA) * strength,
            float(np.clip(jet.z + self.move(), jet.half_width, HEIGHT_M - jet.half_width)),
            jet.half_width * self.factor(self.spread.radius),
        )

    def factor(self, bounds: tuple[float, float]) -> float:
        return float(self.rng.uniform(*bounds))

    def move(self) -> float:
        return float(self.rng.uniform(-1, 1) * self.spread.displacement)
