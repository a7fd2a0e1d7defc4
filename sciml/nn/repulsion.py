"""The screened repulsion of two nuclei, which every pair of atoms feels that comes too close."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sciml.nn.radial import envelope

COULOMB = 14.399645
"""Energy of two unit charges 1 A apart, eV."""
SCREENING, CHARGE_POWER = 0.8854 * 0.529177, 0.23
"""The screening length is the first (A) over the sum of the charges, each to the second."""
SHARES = (0.18175, 0.50986, 0.28022, 0.02817)
DECAYS = (3.19980, 0.94229, 0.40290, 0.20162)
"""Exponentials of the universal screening function, of the distance in screening lengths."""
EXPONENT = 6
"""Shapes the envelope."""
NEAREST = {"fcc": 0.5**0.5, "bcc": 0.75**0.5, "hcp": 1.0}
"""Shortest distance in a crystal over its lattice constant."""
UNKNOWN_RADIUS = 1.6
"""A; of elements whose covalent radius nobody measured."""


class ScreenedRepulsion(nn.Module):
    """Computes the universal repulsion of Ziegler, Biersack and Littmark, led to zero where bonds begin.

    It has no parameters: a network learns the difference to it, and where no data ever held the network (two atoms
    much closer than any in training, pairs of elements never seen) what is left is a wall. It ends, with two
    derivatives, at the sum of the atoms' radii or at the network's cutoff, whichever comes first; crystals at rest
    hardly feel it.

    Source: Ziegler, Biersack and Littmark (1985), The Stopping and Range of Ions in Solids, volume 1; as a wall under
    a network: Batatia et al. (2024), https://doi.org/10.48550/arXiv.2401.00096.

    Args:
        cutoff: of the neighbor list, A.
    """

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(
        self,
        atomic_numbers: Int[Tensor, "atom"],
        edge_vectors: Float[Tensor, "edge 3"],
        senders: Int[Tensor, "edge"],
        receivers: Int[Tensor, "edge"],
    ) -> Float[Tensor, "atom"]:
        """Returns the energy of each atom, eV: half of each of its pairs.

        Args:
            edge_vectors: from receiver to sender, A; not zero.
            senders, receivers: atoms at the ends, each pair in both directions.
        """
        charges = atomic_numbers.to(edge_vectors.dtype)
        powers = charges**CHARGE_POWER
        radii = atomic_radii().to(edge_vectors).index_select(0, atomic_numbers)
        first, second = (
            torch.stack([charges, powers, radii], dim=1).index_select(0, ends) for ends in (senders, receivers)
        )
        (product, _, _), (_, power, reach) = (first * second).unbind(1), (first + second).unbind(1)
        lengths = edge_vectors.square().sum(-1).sqrt()
        scaled = (lengths * power / SCREENING)[:, None]
        decays, shares = scaled.new_tensor(DECAYS), scaled.new_tensor(SHARES)
        screening = torch.exp(-decays * scaled) @ shares
        switch = envelope(lengths, reach.clamp(max=self.cutoff), EXPONENT)
        pairs = 0.5 * COULOMB * product / lengths * screening * switch
        return pairs.new_zeros(len(atomic_numbers)).index_add(0, receivers, pairs)


@cache
def atomic_radii() -> Float[Tensor, "number"]:
    """Returns the radii of atoms by number, A: covalent ones, but no more than half the shortest distance in the
    element's crystal.

    Source: Cordero et al. (2008), https://doi.org/10.1039/b801115j, for covalent radii.
    """
    from ase.data import covalent_radii, missing, reference_states

    radii = [UNKNOWN_RADIUS if radius == missing else float(radius) for radius in covalent_radii]
    for number, state in enumerate(reference_states[: len(radii)]):
        crystal: dict[str, Any] = state or {"symmetry": "none"}
        if crystal["symmetry"] in NEAREST:
            radii[number] = min(radii[number], 0.5 * NEAREST[crystal["symmetry"]] * crystal["a"])
    return torch.tensor(radii, dtype=torch.float64)
