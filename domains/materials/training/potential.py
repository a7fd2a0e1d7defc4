"""The materials model: elements and edges to states of atoms by the shared GNN, states to targets by heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from domains.materials.training.heads import Head, TargetConfig, branch_rows
from domains.materials.training.periodic_table import likest_element
from sciml.models.gnn import GNN, Exchange, GNNConfig
from sciml.nn.initialization import initialize
from sciml.nn.radial import envelope
from sciml.nn.repulsion import ScreenedRepulsion
from sciml.parallel.plan import ShardingPlan, Style

ENERGY = "energy"
ATOMIC = "energy.atoms"
"""Name of an output that is no target: the part of the energy that each atom has."""
REPULSION = "energy.repulsion"
"""Likewise: the energy (eV) that each atom has beside the network."""


BONDED = "energy.bonded"
"""Likewise: how far each atom is bonded, from 0 for a free one to 1 in matter."""


class MaterialsGNN(nn.Module):
    """Predicts the targets of structures, in the units that the task makes of them.

    Args:
        config: the network.
        elements: atomic numbers that it knows, increasing.
        targets: what it predicts, by name.
        branches: names of the data sets.
        avg_num_neighbors: edges for an atom in the training data.
        tells_bonds: whether it says how far atoms are bonded, which exact energies of free atoms need.
    """

    plan: ClassVar[ShardingPlan] = GNN.plan.within("encoder") | ShardingPlan(
        {"heads.*.hidden.*": Style.REPLICATE, "heads.*.out.*": Style.REPLICATE}
    )

    def __init__(
        self,
        config: GNNConfig,
        elements: Sequence[int],
        targets: Mapping[str, TargetConfig],
        *,
        branches: Sequence[str] = ("default",),
        avg_num_neighbors: float = 1.0,
        tells_bonds: bool = False,
    ) -> None:
        super().__init__()
        self.elements, self.config = tuple(elements), config
        self.rows = {name: branch_rows(t.branches, branches, f"task.targets.{name}") for name, t in targets.items()}
        self.encoder = GNN(config, len(self.elements), avg_num_neighbors=avg_num_neighbors)
        self.heads = nn.ModuleDict(
            {name: Head(config.num_channels, t, max(self.rows[name]) + 1) for name, t in targets.items()}
        )
        self.tells_bonds = tells_bonds
        learns_energy = any(target.kind == "energy" for target in targets.values())
        wall = config.repulsion != "none" and learns_energy
        self.repulsion = ScreenedRepulsion(config.cutoff) if wall else None
        initialize(self, torch.initial_seed())

    def variable_rows(self) -> dict[str, tuple[str, ...]]:
        """Returns the parameter that has a row for each element, with the elements, so that a model of other
        elements can take over the rows of those that both know.
        """
        from ase.data import chemical_symbols

        return {"encoder.elements.weight": tuple(chemical_symbols[number] for number in self.elements)}

    @staticmethod
    def likest(variable: str, known: Sequence[str]) -> str:
        """Returns the known element that another one is most like, by symbols; it starts as that one."""
        from ase.data import atomic_numbers, chemical_symbols

        return chemical_symbols[likest_element(atomic_numbers[variable], [atomic_numbers[one] for one in known])]

    def forward(
        self,
        atomic_numbers: Int[Tensor, "atom"],
        edge_vectors: Float[Tensor, "edge 3"],
        senders: Int[Tensor, "edge"],
        receivers: Int[Tensor, "edge"],
        graph_index: Int[Tensor, "atom"],
        branch: Int[Tensor, "graph"],
        exchange: Exchange | None = None,
    ) -> dict[str, Float[Tensor, "_ _"]]:
        """Returns targets by name, (structure or atom, width), also where no label is known; beside them
        :data:`ATOMIC`, :data:`REPULSION` and :data:`BONDED`.

        Args:
            edge_vectors: from receiver to sender, A.
            senders, receivers: atoms at the ends.
            graph_index: the structure of an atom.
            branch: the data set of each structure, whose head is read.
            exchange: see :meth:`sciml.models.gnn.GNN.forward`.
        """
        table = torch.tensor(self.elements, device=atomic_numbers.device)
        elements = torch.searchsorted(table, atomic_numbers)
        states = self.encoder(elements, edge_vectors, senders, receivers, len(elements), graph_index, exchange)
        outputs = {}
        for name, head in self.heads.items():
            rows = torch.tensor(self.rows[name], device=branch.device).clamp(min=0)[branch]
            outputs[name], of_atoms = head(states.scalars, rows[graph_index], graph_index, len(branch))
            if name == ENERGY:
                outputs[ATOMIC] = of_atoms
        if self.repulsion is not None:
            outputs[REPULSION] = self.repulsion(atomic_numbers, edge_vectors, senders, receivers)[:, None]
        if self.tells_bonds:
            weights = envelope(edge_vectors.square().sum(-1).sqrt(), self.config.cutoff)
            neighbors = weights.new_zeros(len(elements)).index_add(0, receivers, weights)
            outputs[BONDED] = 1 - torch.exp(-neighbors[:, None])
        return outputs
