"""A plane of length 2 and height 1, without units, and random smooth fields that are the same on any grid of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from domains.fluids.cells import Cells

LENGTH, HEIGHT = 2.0, 1.0
FEWEST_CELLS = 8
STEEPNESS = 2.0
"""Amplitudes of random waves fall with this power of the wave number."""


@dataclass(frozen=True)
class Plane(Cells):
    """Divides the plane into equal cells."""

    length, height, fewest = LENGTH, HEIGHT, FEWEST_CELLS

    @property
    def smallest_cell(self) -> float:
        """Returns the shorter side of a cell."""
        return min(self.dx, self.dz)


REFERENCE = Plane(64, 32)
"""On whose cells the size of random fields is measured, so that it is the same on any grid."""


@dataclass(frozen=True)
class Waves:
    """Adds plane waves, ``amplitude * cos(kx x + kz z + phase)``.

    Attributes:
        kx: wave numbers along x, in radians a unit.
        kz: the same along z.
    """

    kx: Float[np.ndarray, "wave"]
    kz: Float[np.ndarray, "wave"]
    amplitude: Float[np.ndarray, "wave"]
    phase: Float[np.ndarray, "wave"]

    @classmethod
    def draw(cls, rng: np.random.Generator, most: float, *, half_waves: bool = False) -> Waves:
        """Draws all waves that fit the plane and have at least one and at most so many waves a unit of length.

        Args:
            most: waves a unit of length.
            half_waves: whether half waves fit along z, as between walls; else whole ones, periodic.
        """
        along_z = (0.5 if half_waves else 1.0) / HEIGHT
        m, n = np.meshgrid(
            np.arange(0, int(most * LENGTH) + 1), np.arange(-int(most / along_z), int(most / along_z) + 1)
        )
        x, z = m.ravel() / LENGTH, n.ravel() * along_z
        length = np.hypot(x, z)
        chosen = (length >= 1 - 1e-9) & (length <= most + 1e-9) & ((x > 0) | (z > 0))
        x, z, length = x[chosen], z[chosen], length[chosen]
        amplitude = rng.standard_normal(len(x)) / length**STEEPNESS
        return cls(2 * np.pi * x, 2 * np.pi * z, amplitude, rng.uniform(0, 2 * np.pi, len(x)))

    def mirrored(self, sign: int) -> Waves:
        """Returns the waves with their images in the walls at both ends of z, where they have half waves.

        Args:
            sign: -1 makes the sum vanish at the walls, 1 makes it level there.
        """
        images = (self.kx, -self.kz, sign * self.amplitude, self.phase)
        own = (self.kx, self.kz, self.amplitude, self.phase)
        return Waves(*(np.concatenate(pair) for pair in zip(own, images, strict=True)))

    def with_largest(self, value: float) -> Waves:
        """Returns the waves with a largest value of their sum."""
        return self._scaled(value / np.abs(self.on(REFERENCE)).max())

    def with_fastest(self, speed: float) -> Waves:
        """Returns the waves, a stream function, with a largest speed of its flow."""
        return self._scaled(speed / np.hypot(*self.flow_on(REFERENCE)).max())

    def laplacian(self) -> Waves:
        """Returns the waves of the sum's second derivatives along x and z, added."""
        return replace(self, amplitude=-self.amplitude * (self.kx**2 + self.kz**2))

    def _scaled(self, factor: float) -> Waves:
        return replace(self, amplitude=self.amplitude * factor)

    def on(self, plane: Plane) -> Float[np.ndarray, "z x"]:
        """Returns the sum at the centers of cells."""
        return np.einsum("w,wzx->zx", self.amplitude, np.cos(self._angles(plane)))

    def flow_on(self, plane: Plane) -> tuple[Float[np.ndarray, "z x"], Float[np.ndarray, "z x"]]:
        """Returns the velocity along x and z of which the sum is the stream function: free of divergence."""
        sines = np.sin(self._angles(plane))
        u = np.einsum("w,wzx->zx", -self.amplitude * self.kz, sines)
        w = np.einsum("w,wzx->zx", self.amplitude * self.kx, sines)
        return u, w

    def _angles(self, plane: Plane) -> Float[np.ndarray, "wave z x"]:
        kx, kz, phase = (each[:, None, None] for each in (self.kx, self.kz, self.phase))
        angles: np.ndarray = kx * plane.x + kz * plane.z[:, None] + phase
        return angles
