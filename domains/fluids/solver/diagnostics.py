"""Sums what a closed flow keeps: mass and energy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.solver.background import C0, CV, GAMMA, GRAVITY, P0, RD

CP = CV + RD


class Totals(NamedTuple):
    """Sums over a plane of unit depth, of each member.

    Attributes:
        mass: kg/m.
        energy: kinetic, internal and potential, J/m; without jets and forcing only viscosity changes it.
        original_energy: the number that miniWeather prints as ``te``: kinetic energy twice and no potential one.
            It is not kept, and good for comparing programs only.
    """

    mass: Float[Tensor, "..."]
    energy: Float[Tensor, "..."]
    original_energy: Float[Tensor, "..."]


def totals(
    fields: Float[Tensor, "... 4 z x"],
    hy_dens: Float[Tensor, "... z"],
    hy_theta: Float[Tensor, "... z"],
    dx: float,
    dz: float,
) -> Totals:
    """Returns the mass and the energies of flows, in float64.

    Args:
        fields: perturbation of density, winds along x and z, perturbation of potential temperature; SI units.
        hy_dens: density of the background, kg/m^3.
        hy_theta: potential temperature of the background, K.
        dx: m.
        dz: m.
    """
    dens, uwnd, wwnd, theta = fields.double().unbind(-3)
    dens = dens + hy_dens.double()[..., None]
    theta = theta + hy_theta.double()[..., None]
    pressure = C0 * (dens * theta) ** GAMMA
    internal = dens * CV * theta * (pressure / P0) ** (RD / CP)
    motion = dens * (uwnd**2 + wwnd**2)
    height = (torch.arange(dens.shape[-2], dtype=torch.float64, device=dens.device)[:, None] + 0.5) * dz

    def integral(density: Float[Tensor, "... z x"]) -> Float[Tensor, "..."]:
        return density.sum((-2, -1)) * (dx * dz)

    return Totals(
        integral(dens), integral(motion / 2 + internal + dens * GRAVITY * height), integral(motion + internal)
    )
