"""The dry compressible Euler equations in a vertical plane, as finite volumes, one direction at a time.

The scheme of miniWeather (Norman, https://github.com/mrnorman/miniWeather): interpolation of fourth order,
hyperviscosity, three low-storage Runge-Kutta stages. What is carried are perturbations of density and of density times
potential temperature, and momenta. Pressure enters as the perturbation of a background that does not change along the
direction, so that float32 keeps its digits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.solver.background import GAMMA, GRAVITY

HYPERVISCOSITY = 0.05 / 16
STAGES = (3, 2, 1)
"""Each stage goes from the start of the step over this share of it."""

State = tuple[Tensor, Tensor, Tensor, Tensor]
"""Density, momenta along x and z, density times potential temperature: (member, z, x) each."""


class Air(NamedTuple):
    """Holds the background along one direction: of cells for x, of interfaces for z. Shapes broadcast to (member, z,
    x).
    """

    dens: Float[Tensor, "m z 1"]
    dens_theta: Float[Tensor, "m z 1"]
    pressure: Float[Tensor, "m z 1"]


class Inflow(NamedTuple):
    """Holds the jet at the left of each member, and into which share of each row it blows."""

    rows: Float[Tensor, "m z 1"]
    speed: Float[Tensor, "m 1 1"]
    theta: Float[Tensor, "m 1 1"]


def stage_x(
    start: State,
    state: State,
    seconds: Float[Tensor, "..."],
    dx: float,
    air: Air,
    jet: Inflow | None,
    force: Float[Tensor, "m z x"] | None,
) -> State:
    """Takes one stage along x: from the start of the step over some seconds, with the tendencies of a state.

    Args:
        dx: m.
        air: averages of cells.
        jet: what is blown in at the left; None repeats the right edge.
        seconds: of the stage, of all members or (m, 1, 1) of each.
        force: what the momentum along z gains, kg/(m^2 s^2).
    """
    faces = state[0].shape[-1] + 1
    courant = seconds / dx
    halo = _periodic(*state)
    if jet is not None:
        halo = _blown(halo, air, jet)
    (r, r3), (u, u3), (w, w3), (t, t3) = (_interface(field, -1, faces) for field in halo)
    wind = u / (r + air.dens)
    fluxes = (
        courant * u + HYPERVISCOSITY * r3,
        courant * (u * wind + _pressure(t, air)) + HYPERVISCOSITY * u3,
        courant * w * wind + HYPERVISCOSITY * w3,
        courant * (t + air.dens_theta) * wind + HYPERVISCOSITY * t3,
    )
    dens, momentum_x, momentum_z, theta = (
        field - flux[..., 1:] + flux[..., :-1] for field, flux in zip(start, fluxes, strict=True)
    )
    if force is not None:
        momentum_z = momentum_z + seconds * force
    return dens, momentum_x, momentum_z, theta


def stage_z(
    start: State,
    state: State,
    seconds: Float[Tensor, "..."],
    dz: float,
    air: Air,
    ghost_ratio: Float[Tensor, "#m 4 1"],
    force: Float[Tensor, "m z x"] | None,
) -> State:
    """Takes one stage along z, between solid walls.

    Args:
        dz: m.
        air: at interfaces.
        ghost_ratio: density of the background in the ghost cells over that at the edge.
        force: as in :func:`stage_x`.
    """
    dens = state[0]
    faces = dens.shape[-2] + 1
    inside = torch.ones(faces, 1, dtype=dens.dtype, device=dens.device)
    inside[0] = inside[-1] = 0.0  # nothing goes through a wall, so mass is kept to rounding
    courant = seconds / dz
    (r, r3), (u, u3), (w, w3), (t, t3) = (_interface(field, -2, faces) for field in _walled(*state, ghost_ratio))
    w = w * inside
    wind = w / (r + air.dens)
    fluxes = (
        courant * w + HYPERVISCOSITY * r3 * inside,
        courant * u * wind + HYPERVISCOSITY * u3,
        courant * (w * wind + _pressure(t, air)) + HYPERVISCOSITY * w3,
        courant * (t + air.dens_theta) * wind + HYPERVISCOSITY * t3,
    )
    pull = -GRAVITY * dens if force is None else force - GRAVITY * dens
    dens, momentum_x, momentum_z, theta = (
        field - flux[..., 1:, :] + flux[..., :-1, :] for field, flux in zip(start, fluxes, strict=True)
    )
    return dens, momentum_x, momentum_z + seconds * pull, theta


def _interface(
    field: Float[Tensor, "m padded_z padded_x"], dim: int, faces: int
) -> tuple[Float[Tensor, "m face_z face_x"], Float[Tensor, "m face_z face_x"]]:
    """Returns the value at each interface, of fourth order, and the third difference across it."""
    a, b, c, d = (field.narrow(dim, offset, faces) for offset in range(4))
    return (7 * (b + c) - (a + d)) / 12, 3 * (b - c) + (d - a)


def _pressure(theta: Float[Tensor, "m z x"], air: Air) -> Float[Tensor, "m z x"]:
    """Returns the perturbation of pressure; p = C0 (rho theta)^gamma without the difference of two large numbers."""
    return air.pressure * torch.expm1(GAMMA * torch.log1p(theta / air.dens_theta))


def _periodic(*fields: Float[Tensor, "m z x"]) -> list[Float[Tensor, "m z padded_x"]]:
    return [torch.cat((field[..., -2:], field, field[..., :2]), -1) for field in fields]


def _blown(halo: list[Float[Tensor, "m z padded_x"]], air: Air, jet: Inflow) -> list[Float[Tensor, "m z padded_x"]]:
    """Puts the jet into the ghost cells at the left."""
    dens, momentum_x, momentum_z, theta = halo
    full = dens[..., :2] + air.dens
    beside = 1 - jet.rows
    left_x = jet.rows * (full * jet.speed) + beside * momentum_x[..., :2]
    left_theta = jet.rows * (full * jet.theta - air.dens_theta) + beside * theta[..., :2]
    momentum_x = torch.cat((left_x, momentum_x[..., 2:]), -1)
    return [dens, momentum_x, momentum_z, torch.cat((left_theta, theta[..., 2:]), -1)]


def _walled(
    dens: Float[Tensor, "m z x"],
    momentum_x: Float[Tensor, "m z x"],
    momentum_z: Float[Tensor, "m z x"],
    theta: Float[Tensor, "m z x"],
    ghost_ratio: Float[Tensor, "#m 4 1"],
) -> tuple[Float[Tensor, "m padded_z x"], ...]:
    """Adds ghost cells below and above: the wind along a wall continues, none crosses it."""

    def edges(field: Float[Tensor, "m z x"]) -> tuple[Float[Tensor, "m 2 x"], Float[Tensor, "m 2 x"]]:
        shape = (*field.shape[:-2], 2, field.shape[-1])
        return field[..., :1, :].expand(shape), field[..., -1:, :].expand(shape)

    def between(
        field: Float[Tensor, "m z x"], below: Float[Tensor, "m 2 x"], above: Float[Tensor, "m 2 x"]
    ) -> Float[Tensor, "m padded_z x"]:
        return torch.cat((below, field, above), -2)

    below, above = edges(momentum_x)
    still = torch.zeros_like(momentum_z[..., :2, :])
    return (
        between(dens, *edges(dens)),
        between(momentum_x, below * ghost_ratio[..., :2, :], above * ghost_ratio[..., 2:, :]),
        between(momentum_z, still, still),
        between(theta, *edges(theta)),
    )
