"""Atoms and their edges by brute force: what graph networks are tested on, independent of any neighbor list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sciml.models.gnn import GNN, GNNConfig


@dataclass(frozen=True)
class Atoms:
    """One or more structures in a row.

    Attributes:
        positions: (atom, 3), A.
        elements: (atom), places in a table of elements.
        senders, receivers: (edge).
        shifts: (edge, 3), whole cells between them.
        cells: (edge, 3, 3), of each edge's structure, A.
    """

    positions: Tensor
    elements: Tensor
    senders: Tensor
    receivers: Tensor
    shifts: Tensor
    cells: Tensor

    def edge_vectors(self, positions: Tensor | None = None, strain: Tensor | None = None) -> Tensor:
        """From receiver to sender, of other positions and of a strained structure if so wanted."""
        x = self.positions if positions is None else positions
        offsets = torch.einsum("ea,eab->eb", self.shifts, self.cells)
        vectors = x[self.senders] - x[self.receivers] + offsets
        return vectors if strain is None else vectors + vectors @ strain

    def __add__(self, other: Atoms) -> Atoms:
        joined = [torch.cat([getattr(self, name), getattr(other, name)]) for name in ("positions", "elements")]
        ends = [
            torch.cat([getattr(self, name), getattr(other, name) + len(self.positions)])
            for name in ("senders", "receivers")
        ]
        shifts, cells = (torch.cat([getattr(self, name), getattr(other, name)]) for name in ("shifts", "cells"))
        return Atoms(*joined, *ends, shifts, cells)


def connect(positions: Tensor, elements: Tensor, cell: Tensor, cutoff: float, images: int = 2) -> Atoms:
    """Every edge below the cutoff, found by trying all; a cell of zeros is a molecule in empty space."""
    steps = torch.arange(-images, images + 1, dtype=positions.dtype)
    shifts = torch.cartesian_prod(steps, steps, steps) if cell.any() else torch.zeros(1, 3, dtype=positions.dtype)
    far = positions[None, :, None] + (shifts @ cell)[None, None] - positions[:, None, None]
    same = torch.eye(len(positions), dtype=torch.bool)[:, :, None] & (shifts == 0).all(-1)
    receivers, senders, image = ((far.norm(dim=-1) < cutoff) & ~same).nonzero(as_tuple=True)
    cells = cell.expand(len(senders), 3, 3)
    return Atoms(positions, elements, senders, receivers, shifts[image], cells)


def crystal(cutoff: float = 3.0, seed: int = 0) -> Atoms:
    """Six atoms of three elements in a skewed cell, small enough for several edges between the same two atoms."""
    generator = torch.Generator().manual_seed(seed)
    cell = torch.tensor([[3.6, 0.0, 0.0], [0.4, 3.9, 0.0], [-0.3, 0.5, 4.2]], dtype=torch.float64)
    corners = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 1, 1], [0, 0, 1]]).double() / 2
    rattle = 0.1 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    return connect(corners @ cell + rattle, torch.tensor([0, 1, 2, 0, 1, 2]), cell, cutoff)


def molecule(num_atoms: int = 5, cutoff: float = 3.0, seed: int = 0) -> Atoms:
    """Some atoms of three elements in empty space, none closer than about 1 A."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(num_atoms)
    grid = torch.stack([steps % 2, steps // 2 % 2, steps // 4], dim=1).double() * 1.8
    positions = grid + 0.2 * torch.randn(num_atoms, 3, generator=generator, dtype=torch.float64)
    return connect(positions, steps % 3, torch.zeros(3, 3, dtype=torch.float64), cutoff)


class EnergyModel(nn.Module):
    """A sum of energies of atoms, read by a small network; float64 and away from special weights."""

    def __init__(self, config: GNNConfig, makes_vectors: bool = False) -> None:
        super().__init__()
        self.encoder = GNN(config, 3, avg_num_neighbors=12.0, makes_vectors=makes_vectors)
        self.read = nn.Linear(config.num_channels, 1)

    def forward(self, atoms: Atoms, edge_vectors: Tensor, graph_index: Tensor | None = None) -> Tensor:
        """Energies of atoms (atom)."""
        count = len(atoms.positions)
        states = self.encoder(atoms.elements, edge_vectors, atoms.senders, atoms.receivers, count, graph_index)
        return torch.tanh(self.read(states.scalars)).squeeze(-1)


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 with random weights everywhere, also where it would start at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            fan = parameter.shape[-1] if parameter.ndim > 1 else 4
            parameter.copy_(noise / fan**0.5 + (1.0 if parameter.ndim == 1 else 0.0))
    return model


def energy_and_forces(model: Callable[..., Tensor], atoms: Atoms, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """The energy and the forces (atom, 3)."""
    x = atoms.positions.clone().requires_grad_()
    energy = model(atoms, atoms.edge_vectors(x)).sum()
    (gradient,) = torch.autograd.grad(energy, x, create_graph=create_graph)
    return energy, -gradient
