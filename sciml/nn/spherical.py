"""Convolutions on a whole sphere: weights of spherical harmonics, alike in all directions and at all places.

Source: Driscoll and Healy (1994), https://doi.org/10.1006/aama.1994.1008; Bonev et al. (2023),
https://doi.org/10.48550/arXiv.2306.03838, for operators made of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.nn.initialization import Normal, starts_as
from sciml.nn.topology import Sphere, Topology


class Harmonics(NamedTuple):
    """Holds the spherical harmonics on the rows of a grid, at longitude 0.

    Attributes:
        values: of each order and degree, on each row.
        weights: of the rows in an integral over the sphere, times ``values``.
    """

    values: Float[Tensor, "order degree row"]
    weights: Float[Tensor, "order degree row"]


class SphericalConv(nn.Module):
    """Mixes channels with weights of their own for each degree of spherical harmonics.

    Rows are taken to be evenly spaced from pole to pole, as those of a Gaussian grid nearly are. ``weight`` is
    (in, out, degree, real and imaginary part).

    Args:
        num_channels: of input and output.
        degrees: the longest waves that are weighed; shorter ones are left out.
    """

    def __init__(self, num_channels: int, degrees: int) -> None:
        super().__init__()
        self.degrees = degrees
        self.weight = nn.Parameter(torch.empty(num_channels, num_channels, degrees, 2))
        starts_as(self, weight=Normal(1.0 / num_channels))

    def forward(
        self, x: Float[Tensor, "batch channel row column"], topology: Topology
    ) -> Float[Tensor, "batch channel row column"]:
        """Returns the mixed fields.

        Raises:
            ConfigError: where the grid does not cover a sphere.
        """
        if not isinstance(topology, Sphere):
            raise ConfigError("the grid covers no sphere", key="model.degrees", hint="use 0, for waves of rows")
        dtype, columns = self.weight.dtype, x.shape[-1]
        basis = harmonics(x.shape[-2], columns, self.degrees, topology.on_poles, dtype, x.device)
        waves = torch.fft.rfft(x.to(dtype), norm="forward")[..., : len(basis.values)]
        spectrum = _with_rows("bcrm,mlr->bclm", waves, basis.weights)
        weight = torch.view_as_complex(self.weight)[:, :, : spectrum.shape[-2]]
        mixed = torch.einsum("bilm,iol->bolm", spectrum, weight)
        back = _with_rows("bclm,mlr->bcrm", mixed, basis.values)
        return torch.fft.irfft(back, n=columns, norm="forward").to(x.dtype)


def _with_rows(
    equation: str, waves: Complex[Tensor, "..."], basis: Float[Tensor, "order degree row"]
) -> Complex[Tensor, "..."]:
    parts = [torch.einsum(equation, part, basis) for part in (waves.real, waves.imag)]
    return torch.complex(parts[0], parts[1])


@lru_cache(maxsize=8)
def harmonics(
    rows: int,
    columns: int,
    degrees: int,
    on_poles: tuple[bool, bool] = (False, False),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Harmonics:
    """Returns the harmonics of as many degrees as a grid can tell apart, at most ``degrees``."""
    from scipy.special import sph_legendre_p_all

    first, last = (0.0 if on_pole else 0.5 for on_pole in on_poles)
    angles = np.pi * (np.arange(rows) + first) / (rows - 1 + first + last)
    # the weights by which the rows integrate as many Legendre polynomials exactly as there are rows
    polynomials = np.polynomial.legendre.legvander(np.cos(angles), rows - 1).T
    row_weights = np.linalg.solve(polynomials * np.sqrt(2 * np.arange(rows) + 1)[:, None], 2.0 * (np.arange(rows) == 0))
    kept = min(degrees, (rows + 1) // 2)
    orders = min(kept, columns // 2 + 1)
    values = sph_legendre_p_all(kept - 1, kept - 1, angles)[0][:, :orders].swapaxes(0, 1)
    both = (values, 2 * np.pi * values * row_weights)
    return Harmonics(*(torch.as_tensor(array, dtype=dtype, device=device).contiguous() for array in both))
