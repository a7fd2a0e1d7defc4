"""Relaxation of many structures at once: those that have converged leave the batch, and others take their places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from domains.materials.data.structure import Structure
from domains.materials.dynamics.fire import Fire
from domains.materials.dynamics.moving import Gradients, MovingBatch
from domains.materials.inference.predictor import BATCH_EDGES, Labels, Predictor
from sciml.core.errors import DataError
from sciml.core.types import AtLeastOne, Positive


@dataclass(frozen=True)
class RelaxConfig:
    """Says how structures are relaxed.

    Attributes:
        relax: ``none``, ``atoms`` (in their cell), or ``cell`` (atoms and all of the cell).
        fmax: largest force, eV/A, of an atom or of a row of the cell's coordinates, at which a structure has converged.
        max_steps: after which it is given up.
    """

    relax: Literal["none", "atoms", "cell"] = "none"
    fmax: Positive[float] = 0.02
    max_steps: AtLeastOne = 500


@dataclass(frozen=True)
class Relaxed:
    """Holds a relaxed structure.

    Attributes:
        structure: atoms and cell at the end.
        values: energy (eV), forces (eV/A) and stress (eV/A^3) at the end, by name.
        fmax: largest force that is left, eV/A.
        steps: that were taken.
        converged: whether the largest force is small enough.
    """

    structure: Structure
    values: Labels
    fmax: float
    steps: int
    converged: bool


def relax(predictor: Predictor, structures: Iterable[Structure], config: RelaxConfig) -> Iterator[Relaxed]:
    """Relaxes structures by FIRE, and yields them in their order.

    Cells move along the logarithm of their deformation, as in ASE's ``FrechetCellFilter``.

    Args:
        structures: any number; about as many edges as fit are moved together.

    Raises:
        DataError: a structure whose cell is to be relaxed has none that repeats.
    """
    waiting = enumerate(structures)
    batch = _RelaxingBatch(predictor, cell=config.relax == "cell")
    done: dict[int, Relaxed] = {}
    following = 0
    while True:
        batch.fill(waiting)
        if not len(batch.numbers):
            return
        found = batch.moving.evaluate()
        forces = batch.forces(found)
        largest = batch.largest(forces)
        converged = largest < config.fmax
        finished = converged | (batch.fire.steps >= config.max_steps)
        for number in finished.nonzero()[:, 0].tolist():
            structure, steps = batch.moving.structure(number), int(batch.fire.steps[number])
            state = batch.moving.values(found, number), float(largest[number]), steps, bool(converged[number])
            done[batch.numbers[number]] = Relaxed(structure, *state)
        if finished.any():
            forces = forces[~finished[batch.row_graph]]
            batch.keep(~finished)
        if len(batch.numbers):
            batch.move(forces)
        while following in done:
            yield done.pop(following)
            following += 1


def check_cell(structure: Structure) -> None:
    """Refuses a structure whose cell cannot be relaxed: a molecule, also one in a box.

    Raises:
        DataError: it has no three vectors, or repeats along none.
    """
    if not (structure.volume and structure.pbc.any()):
        name = structure.name or structure.formula
        raise DataError(f"{name}: has no cell that repeats, so none to relax; use relax=atoms")


class _RelaxingBatch:
    """Holds coordinates in the cells that structures began with, and behind them those of cells' deformations.

    The second are the logarithms of deformations times the number of atoms, three rows a structure.
    """

    def __init__(self, predictor: Predictor, *, cell: bool) -> None:
        self.moving, self.fire, self.cell = MovingBatch(predictor), Fire(), cell
        self.numbers: list[int] = []
        self.coordinates = torch.zeros(0, 3, dtype=torch.float64)
        self.first_cell = torch.zeros(0, 3, 3, dtype=torch.float64)

    @property
    def row_graph(self) -> Int[Tensor, "row"]:
        """Returns the structure of each row of coordinates."""
        rows = self.moving.graph_index
        return torch.cat([rows, torch.arange(len(self.numbers)).repeat_interleave(3)]) if self.cell else rows

    @property
    def num_rows(self) -> int:
        return len(self.moving.positions)

    def fill(self, waiting: Iterator[tuple[int, Structure]]) -> None:
        """Takes in structures as long as there is room for their edges."""
        new: list[Structure] = []
        edges, size = self.moving.num_edges, self.moving.num_edges / max(len(self.numbers), 1)
        while edges == 0 or edges + size <= BATCH_EDGES:
            number, structure = next(waiting, (-1, None))
            if structure is None:
                break
            if self.cell:
                check_cell(structure)
            self.numbers.append(number)
            new.append(structure)
            if not size:  # one alone, to see how many edges such structures have
                self._take_in([structure])
                new, edges = [], self.moving.num_edges
                size = float(edges)
            edges += int(size)
        if new:
            self._take_in(new)

    def _take_in(self, new: list[Structure]) -> None:
        atoms = self.num_rows
        self.moving.add(new)
        self.fire.add(len(new))
        first = self.moving.positions[atoms:]
        before, cells = self.coordinates[:atoms], self.coordinates[atoms:]
        rows = 3 * len(new) if self.cell else 0
        self.coordinates = torch.cat([before, first, cells, cells.new_zeros(rows, 3)])
        velocity, of_cells = self.fire.velocity[:atoms], self.fire.velocity[atoms:]
        zeros = torch.zeros_like(first), cells.new_zeros(rows, 3)
        self.fire.velocity = torch.cat([velocity, zeros[0], of_cells, zeros[1]])
        self.first_cell = torch.cat([self.first_cell, self.moving.cell[-len(new) :]])

    def keep(self, wanted: Bool[Tensor, "graph"]) -> None:
        """Lets other structures go."""
        rows = wanted[self.row_graph]
        self.coordinates, self.fire.velocity = self.coordinates[rows], self.fire.velocity[rows]
        self.first_cell = self.first_cell[wanted]
        self.numbers = [number for number, stays in zip(self.numbers, wanted.tolist(), strict=True) if stays]
        self.moving.keep(wanted)
        self.fire.keep(wanted)

    def deformation(self) -> tuple[Float[Tensor, "graph 3 3"], Float[Tensor, "graph 3 3"]]:
        """Returns the logarithms of the cells' deformations, and these, differentiable in them."""
        atoms = self.moving.num_atoms[:, None, None].double()
        log = (self.coordinates[self.num_rows :].unflatten(0, (-1, 3)) / atoms).requires_grad_()
        return log, torch.linalg.matrix_exp(log)

    def forces(self, found: Gradients) -> Float[Tensor, "row 3"]:
        """Returns the forces on all coordinates."""
        if not self.cell:
            return found.forces
        with torch.enable_grad():
            log, deformation = self.deformation()
            volume = torch.linalg.det(self.moving.cell).abs()[:, None, None]
            pull = -volume * found.stress @ torch.linalg.inv(deformation.detach()).transpose(1, 2)
            (on_log,) = torch.autograd.grad(deformation, log, pull)
        on_atoms = torch.einsum("na,nab->nb", found.forces, deformation.detach()[self.moving.graph_index])
        return torch.cat([on_atoms, (on_log / self.moving.num_atoms[:, None, None]).flatten(0, 1)])

    def largest(self, forces: Float[Tensor, "row 3"]) -> Float[Tensor, "graph"]:
        """Returns the largest force on a row of each structure's coordinates."""
        none = forces.new_zeros(len(self.numbers))
        return none.scatter_reduce(0, self.row_graph, forces.norm(dim=1), "amax")

    def move(self, forces: Float[Tensor, "row 3"]) -> None:
        """Takes a step."""
        self.coordinates = self.coordinates + self.fire.step(forces, self.row_graph)
        own = self.coordinates[: self.num_rows]
        if not self.cell:
            self.moving.positions = own
            return
        deformation = self.deformation()[1].detach().transpose(1, 2)
        self.moving.positions = torch.einsum("na,nab->nb", own, deformation[self.moving.graph_index])
        self.moving.cell = self.first_cell @ deformation
