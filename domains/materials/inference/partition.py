"""A large structure shared by ranks: each has some atoms, and copies of the others' atoms that these see.

Atoms are shared by recursive bisection of the cell. Between layers of the network, states of copies are brought up to
date from the ranks that own them; the backward pass hands their gradients back. So every state is computed once, and
energies, forces and stress are those of one process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from domains.materials.data.batch import GraphBatch, GraphSample
from domains.materials.training.ensemble import combined
from domains.materials.training.task import MaterialsTask
from sciml.distributed.collectives import exchange_rows
from sciml.nn.message import NodeStates

Array = np.ndarray


@dataclass(frozen=True)
class Halo:
    """Brings states of copies up to date.

    Attributes:
        owned: atoms that this rank has; copies stand behind them, by the rank that owns them.
        wanted: of its atoms, those that other ranks copy, rank by rank.
        sent, received: how many rows go to each rank, and come from each.
        group: the ranks; None for this process alone.
    """

    owned: int
    wanted: Int[Tensor, "sent"]
    sent: tuple[int, ...]
    received: tuple[int, ...]
    group: dist.ProcessGroup | None = None

    def __call__(self, states: NodeStates) -> NodeStates:
        """Returns the same states of own atoms, and those of copies as their owners have them."""
        if self.group is None:
            return states
        kinds = [kind for kind in states if kind is not None]
        rows = torch.cat([kind[: self.owned].flatten(1) for kind in kinds], dim=1)
        copies = exchange_rows(rows.index_select(0, self.wanted), self.sent, self.received, self.group)
        parts = copies.split([kind[0].numel() for kind in kinds], dim=1)
        joined = iter(
            torch.cat([kind[: self.owned], part.unflatten(1, kind.shape[1:])])
            for kind, part in zip(kinds, parts, strict=True)
        )
        scalars, vectors, tensors = (None if kind is None else next(joined) for kind in states)
        assert scalars is not None
        return NodeStates(scalars, vectors, tensors)


@dataclass(frozen=True)
class Part:
    """Holds a rank's part of a structure.

    Attributes:
        batch: own atoms as the first structure, copies as the second; all edges end at own atoms.
        atoms: their numbers in the whole.
        halo: of the copies.
    """

    batch: GraphBatch
    atoms: Int[Tensor, "atom"]
    halo: Halo


@dataclass(frozen=True)
class Ranks:
    """Describes this process among those that share a structure.

    Attributes:
        rank, count: this one of how many.
        group: all of them; None for this process alone.
    """

    rank: int = 0
    count: int = 1
    group: dist.ProcessGroup | None = None


def owners_of(positions: Float[Array, "atom 3"], cell: Float[Array, "3 3"], count: int) -> Int[Array, "atom"]:
    """Returns the rank that has each atom: recursively, the longest side is cut so that each half has its share.

    Args:
        positions: A.
        cell: A; where a vector is missing, atoms are cut as they lie.
        count: of ranks.
    """
    from ase.geometry import complete_cell

    whole = np.asarray(complete_cell(cell))
    scaled = positions @ np.linalg.inv(whole)
    periodic = cell.any(1)
    scaled[:, periodic] %= 1.0
    lengths = np.linalg.norm(whole, axis=1)
    owner = np.zeros(len(positions), dtype=np.int64)

    def cut(atoms: Int[Array, "some"], first: int, ranks: int) -> None:
        if ranks == 1:
            owner[atoms] = first
            return
        side = int(np.argmax(np.ptp(scaled[atoms], axis=0) * lengths))
        lower = ranks // 2
        ordered = atoms[np.argsort(scaled[atoms, side], kind="stable")]
        share = len(atoms) * lower // ranks
        cut(ordered[:share], first, lower)
        cut(ordered[share:], first + lower, ranks - lower)

    cut(np.arange(len(positions)), 0, count)
    return owner


def part_of(sample: GraphSample, ranks: Ranks, dtype: torch.dtype) -> Part:
    """Returns a rank's part of a structure whose neighbors are known."""
    rank, count = ranks.rank, ranks.count
    sample = sample.near_origin()
    owner = owners_of(sample.positions, sample.cell, count)
    from_rank, to_rank = owner[sample.senders], owner[sample.receivers]
    mine = to_rank == rank
    own = np.flatnonzero(owner == rank)
    copied = np.unique(sample.senders[mine & (from_rank != rank)])
    copied = copied[np.argsort(owner[copied], kind="stable")]
    crossing = (from_rank == rank) & ~mine
    wanted = np.unique(np.stack([to_rank[crossing], sample.senders[crossing]], axis=1), axis=0)
    atoms = np.concatenate([own, copied])
    number = np.full(len(owner), -1)
    number[atoms] = np.arange(len(atoms))
    halo = Halo(
        len(own),
        torch.from_numpy(number[wanted[:, 1]]),
        tuple(np.bincount(wanted[:, 0], minlength=count).tolist()),
        tuple(np.bincount(owner[copied], minlength=count).tolist()),
        ranks.group,
    )
    return Part(_batch(sample, atoms, len(own), number, mine, dtype), torch.from_numpy(atoms), halo)


def _batch(sample: GraphSample, atoms: Array, owned: int, number: Array, mine: Array, dtype: torch.dtype) -> GraphBatch:
    """Returns the graph of own atoms and copies."""
    copies = len(atoms) - owned
    senders, receivers = (torch.from_numpy(number[getattr(sample, name)[mine]]) for name in ("senders", "receivers"))
    return GraphBatch(
        atomic_numbers=torch.from_numpy(sample.atomic_numbers[atoms].astype(np.int64)),
        positions=torch.from_numpy(sample.positions[atoms]).to(dtype),
        cell=torch.from_numpy(sample.cell).to(dtype).expand(2, 3, 3).clone(),
        pbc=torch.from_numpy(sample.pbc.astype(bool)).expand(2, 3).clone(),
        senders=senders,
        receivers=receivers,
        shifts=torch.from_numpy(sample.shifts[mine]).to(dtype),
        graph_index=torch.tensor([0, 1]).repeat_interleave(torch.tensor([owned, copies])),
        edge_graph=torch.zeros(len(senders), dtype=torch.int64),
        num_atoms=torch.tensor([owned, copies]),
        branch=torch.full((2,), sample.branch, dtype=torch.int64),
    )


def evaluate_shared(
    task: MaterialsTask,
    model: nn.Module,
    sample: GraphSample,
    ranks: Ranks,
    *,
    dtype: torch.dtype,
    device: torch.device,
    gradients: bool = True,
    atomic: bool = False,
) -> dict[str, Tensor]:
    """Returns what ranks together predict of one structure, the same on every rank; spreads as of an ensemble.

    Args:
        gradients, atomic: whether forces and stress, and energies and stresses of atoms, are wanted.
    """
    part = part_of(sample, ranks, dtype)
    halo = replace(part.halo, wanted=part.halo.wanted.to(device))
    batch = part.batch.to(device)
    with torch.no_grad():
        found = task.evaluate(model, batch, create_graph=False, gradients=gradients, atomic=atomic, exchange=halo)
    members = [_whole(member, part, len(sample.atomic_numbers), ranks.group) for member in found]
    return combined(members, task.calibration)


OF_ATOMS, OF_OWN = ("forces", "stresses"), ("energies",)
"""Values of atoms: those that ranks add up, copies' included, and those that an atom's owner alone has."""


def _whole(member: dict[str, Tensor], part: Part, num_atoms: int, group: dist.ProcessGroup | None) -> dict[str, Tensor]:
    """Adds up what the ranks have; copies' energies are their owners'."""
    owned, atoms = part.halo.owned, part.atoms
    values: dict[str, Tensor] = {"energy": member["energy"][:1].detach().double()}
    if "stress" in member:
        values["stress"] = member["stress"][:1].detach().double()
    for name in (*OF_ATOMS, *OF_OWN):
        if name in member:
            rows = member[name].detach().double().cpu()
            last = owned if name in OF_OWN else len(rows)
            whole = rows.new_zeros(num_atoms, *rows.shape[1:])
            values[name] = whole.index_add(0, atoms[:last], rows[:last]).to(member[name].device)
    if group is not None:
        for value in values.values():
            dist.all_reduce(value, group=group)
    return values
