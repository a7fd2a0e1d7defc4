"""Periodic flows by Fourier's method: what diffuses does so exactly, the rest by Runge and Kutta's four stages.

Products are formed on the cells; the shortest third of the waves is left out, so that they fold into no others.

Source: Canuto et al. (2006), Spectral Methods: Fundamentals in Single Domains, doi:10.1007/978-3-540-30726-6.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from domains.fluids.physics.plane import Plane

COURANT = 0.6
"""Cells that the fastest flow crosses in a step; two thirds of the waves and both directions allow 0.67."""

Spectrum = Complex[Tensor, "member component z wave"]


class SpectralPlane:
    """Transforms fields to waves and back, and takes their derivatives."""

    def __init__(self, plane: Plane, device: torch.device) -> None:
        self.shape = (plane.nz, plane.nx)
        along_x, along_z = np.fft.rfftfreq(plane.nx, 1 / plane.nx), np.fft.fftfreq(plane.nz, 1 / plane.nz)
        kept = (3 * np.abs(along_x) < plane.nx) & (3 * np.abs(along_z[:, None]) < plane.nz)
        kx, kz = (2 * np.pi * along_x / (plane.nx * plane.dx), 2 * np.pi * along_z[:, None] / (plane.nz * plane.dz))
        self.kept, self.kx, self.kz = (torch.from_numpy(values).to(device) for values in (kept, kx, kz))
        self.squared = self.kx**2 + self.kz**2

    def spectrum(self, fields: Float[Tensor, "*batch z x"]) -> Complex[Tensor, "*batch z wave"]:
        """Returns the waves of fields, without the shortest third."""
        return torch.fft.rfft2(fields) * self.kept

    def fields(self, spectrum: Complex[Tensor, "*batch z wave"]) -> Float[Tensor, "*batch z x"]:
        return torch.fft.irfft2(spectrum, s=self.shape)

    def slopes(self, spectrum: Complex[Tensor, "*batch z wave"]) -> tuple[Float[Tensor, "*batch z x"], ...]:
        """Returns the derivatives along x and z."""
        return self.fields(1j * self.kx * spectrum), self.fields(1j * self.kz * spectrum)

    def flow(self, vorticity: Complex[Tensor, "*batch z wave"]) -> tuple[Float[Tensor, "*batch z x"], ...]:
        """Returns the velocity along x and z, free of divergence and of a mean, that has a vorticity dw/dx - du/dz."""
        stream = vorticity / torch.where(self.squared > 0, self.squared, 1.0)
        return self.fields(1j * self.kz * stream), self.fields(-1j * self.kx * stream)


class DiffusingFlow:
    """Steps ``dq/dt = diffusivity * Laplacian(q) + tendency(q)`` for all waves of some quantities.

    Args:
        start: the quantities.
        diffusivity: of each flow.
        tendency: the rest of the change, of a spectrum.
        speed: that no flow is faster than.
    """

    def __init__(
        self,
        plane: Plane,
        start: Float[Tensor, "member component z x"],
        diffusivity: Float[Tensor, "member"],
        tendency: Callable[[Spectrum], Spectrum],
        speed: float,
    ) -> None:
        self.waves = SpectralPlane(plane, start.device)
        self.start = self.waves.spectrum(start)
        self.decay = -diffusivity[:, None, None, None] * self.waves.squared
        self.tendency = tendency
        self.largest_step = COURANT * plane.smallest_cell / speed

    def step(self, state: Spectrum, dt: float) -> Spectrum:
        half = torch.exp(self.decay * dt / 2)
        whole = half * half
        first = self.tendency(state)
        second = self.tendency(half * (state + dt / 2 * first))
        third = self.tendency(half * state + dt / 2 * second)
        fourth = self.tendency(whole * state + dt * half * third)
        return whole * state + dt / 6 * (whole * first + 2 * half * (second + third) + fourth)


def planes(values: Float[Tensor, "member"], plane: Plane) -> Float[Tensor, "member 1 z x"]:
    """Returns a number of each flow as a field."""
    return values[:, None, None, None].expand(-1, 1, plane.nz, plane.nx)
