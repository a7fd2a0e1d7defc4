"""The analytic embedded-atom potential of Zhou, Johnson and Wadley for 16 metals and their alloys.

The energy is a sum over atoms of an embedding energy of the electron density that their neighbors bring, and a sum
over pairs. Everything is written as plain differentiable functions of distances, so that forces and stress are
gradients and exact.

Sources: Zhou, Johnson and Wadley (2004), https://doi.org/10.1103/PhysRevB.69.144113 (functions, alloy rule, table);
Johnson (1989), https://doi.org/10.1103/PhysRevB.39.12554 (the alloy rule).

Where copies of the published table differ (A of Al, the sign of eta of W, where the middle branch of Pt begins, and the
upper branch of Ni, which is nearly the same function either way), the values are those of the corrected table that
LAMMPS and OpenMD carry: with them the branches of the embedding energy meet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from domains.materials.data.batch import GraphBatch
from sciml.core.errors import DataError

# Over r_e: where the authors' tables of numbers end, at the fifth shell of an FCC crystal. The functions decay and
# never vanish, so the pair and the density are led to zero from TAPER_START on, where a pair still has up to 6e-4 eV in
# HCP metals and 4e-5 eV in others. No shell of an undisturbed FCC, BCC or HCP crystal lies between the two (the fourth
# of FCC is at 2), so that crystals keep their published energies.
CUTOFF = math.sqrt(5.0)
TAPER_START = 2.1
UPPER_BRANCH = 1.15  # of rho_e

COLUMNS = (
    "r_e", "f_e", "rho_e", "rho_s", "alpha", "beta", "A", "B", "kappa", "lambda_", "Fn0", "Fn1", "Fn2", "Fn3",
    "F0", "F2", "F3", "eta", "F_e", "rho_n",
)  # fmt: skip
# r_e in A, densities in their own unit, energies in eV; rho_n is a multiple of rho_e. F1 is zero for all.
# fmt: off
PARAMETERS: dict[str, tuple[float, ...]] = {
    "Cu": (2.556162, 1.554485, 21.175871, 21.175395, 8.127620, 4.334731, 0.396620, 0.548085, 0.308782, 0.756515,
           -2.170269, -0.263788, 1.088878, -0.817603, -2.19, 0.561830, -2.100595, 0.310490, -2.186568, 0.85),
    "Ag": (2.891814, 1.106232, 14.604100, 14.604144, 9.132010, 4.870405, 0.277758, 0.419611, 0.339710, 0.750758,
           -1.729364, -0.255882, 0.912050, -0.561432, -1.75, 0.744561, -1.150650, 0.783924, -1.748423, 0.85),
    "Au": (2.885034, 1.529021, 19.991632, 19.991509, 9.516052, 5.075228, 0.229762, 0.356666, 0.356570, 0.748798,
           -2.937772, -0.500288, 1.601954, -0.835530, -2.98, 1.706587, -1.134778, 1.021095, -2.978815, 0.85),
    "Ni": (2.488746, 2.007018, 27.562015, 27.562031, 8.383453, 4.471175, 0.429046, 0.633531, 0.443599, 0.820658,
           -2.693513, -0.076445, 0.241442, -2.375626, -2.70, 0.265390, -0.152856, 0.445470, -2.7, 0.85),
    "Pd": (2.750897, 1.595417, 21.335246, 21.940073, 8.697397, 4.638612, 0.406763, 0.598880, 0.397263, 0.754799,
           -2.321006, -0.473983, 1.615343, -0.231681, -2.36, 1.481742, -1.675615, 1.130000, -2.352753, 0.85),
    "Pt": (2.771916, 2.336509, 33.367564, 35.205357, 7.105782, 3.789750, 0.556398, 0.696037, 0.385255, 0.770510,
           -1.455568, -2.149952, 0.528491, 1.222875, -4.17, 3.010561, -2.420128, 1.450000, -4.145597, 0.25),
    "Al": (2.863924, 1.403115, 20.418205, 23.195740, 6.613165, 3.527021, 0.314873, 0.365551, 0.379846, 0.759692,
           -2.807602, -0.301435, 1.258562, -1.247604, -2.83, 0.622245, -2.488244, 0.785902, -2.824528, 0.85),
    "Pb": (3.499723, 0.647872, 8.450154, 8.450063, 9.121799, 5.212457, 0.161219, 0.236884, 0.250805, 0.764955,
           -1.422370, -0.210107, 0.682886, -0.529378, -1.44, 0.702726, -0.538766, 0.935380, -1.439436, 0.85),
    "Fe": (2.481987, 1.885957, 20.041463, 20.041463, 9.818270, 5.236411, 0.392811, 0.646243, 0.170306, 0.340613,
           -2.534992, -0.059605, 0.193065, -2.282322, -2.54, 0.200269, -0.148770, 0.391750, -2.539945, 0.85),
    "Mo": (2.728100, 2.723710, 29.354065, 29.354065, 8.393531, 4.476550, 0.708787, 1.120373, 0.137640, 0.275280,
           -3.692913, -0.178812, 0.380450, -3.133650, -3.71, 0.875874, 0.776222, 0.790879, -3.712093, 0.85),
    "Ta": (2.860082, 3.086341, 33.787168, 33.787168, 8.489528, 4.527748, 0.611679, 1.032101, 0.176977, 0.353954,
           -5.103845, -0.405524, 1.112997, -3.585325, -5.14, 1.640098, 0.221375, 0.848843, -5.141526, 0.85),
    "W": (2.740840, 3.487340, 37.234847, 37.234847, 8.900114, 4.746728, 0.882435, 1.394592, 0.139209, 0.278417,
          -4.946281, -0.148818, 0.365057, -4.432406, -4.96, 0.661935, 0.348147, 0.582714, -4.961306, 0.85),
    "Mg": (3.196291, 0.544323, 7.132600, 7.132600, 10.228708, 5.455311, 0.137518, 0.225930, 0.5, 1.0,
           -0.896473, -0.044291, 0.162232, -0.689950, -0.90, 0.122838, -0.226010, 0.431425, -0.899702, 0.85),
    "Co": (2.505979, 1.975299, 27.206789, 27.206789, 8.679625, 4.629134, 0.421378, 0.640107, 0.5, 1.0,
           -2.541799, -0.219415, 0.733381, -1.589003, -2.56, 0.705845, -0.687140, 0.694608, -2.559307, 0.85),
    "Ti": (2.933872, 1.863200, 25.565138, 25.565138, 8.775431, 4.680230, 0.373601, 0.570968, 0.5, 1.0,
           -3.203773, -0.198262, 0.683779, -2.321732, -3.22, 0.608587, -0.750710, 0.558572, -3.219176, 0.85),
    "Zr": (3.199978, 2.230909, 30.879991, 30.879991, 8.559190, 4.564902, 0.424667, 0.640054, 0.5, 1.0,
           -4.485793, -0.293129, 0.990148, -3.202516, -4.51, 0.928602, -0.981870, 0.597133, -4.509025, 0.85),
}
# fmt: on


class PairParameters(NamedTuple):
    """Describes an element in a pair; one value for each end."""

    r_e: Float[Tensor, "end"]
    f_e: Float[Tensor, "end"]
    alpha: Float[Tensor, "end"]
    beta: Float[Tensor, "end"]
    A: Float[Tensor, "end"]
    B: Float[Tensor, "end"]
    kappa: Float[Tensor, "end"]
    lambda_: Float[Tensor, "end"]


class EmbeddingParameters(NamedTuple):
    """Describes an element in the electrons of its neighbors; one value for each atom."""

    rho_e: Float[Tensor, "atom"]
    rho_s: Float[Tensor, "atom"]
    Fn0: Float[Tensor, "atom"]
    Fn1: Float[Tensor, "atom"]
    Fn2: Float[Tensor, "atom"]
    Fn3: Float[Tensor, "atom"]
    F0: Float[Tensor, "atom"]
    F2: Float[Tensor, "atom"]
    F3: Float[Tensor, "atom"]
    eta: Float[Tensor, "atom"]
    F_e: Float[Tensor, "atom"]
    rho_n: Float[Tensor, "atom"]


class EAMResult(NamedTuple):
    """Holds what the potential gives for a batch, in float64.

    Attributes:
        energy: eV, of each structure; zero is atoms far apart.
        forces: eV/A.
        stress: eV/A^3, ASE's sign; zeros where a structure has no cell.
        density: electrons that the neighbors bring to an atom, in the potential's own unit.
    """

    energy: Float[Tensor, "graph"]
    forces: Float[Tensor, "atom 3"]
    stress: Float[Tensor, "graph 3 3"]
    density: Float[Tensor, "atom"]


def reach(atomic_numbers: Iterable[int]) -> float:
    """Returns the cutoff (A) with which a neighbor list of these elements holds all that the potential needs.

    Raises:
        DataError: for an element that the potential does not know.
    """
    return CUTOFF * max(PARAMETERS[symbol(int(z))][COLUMNS.index("r_e")] for z in atomic_numbers)


def symbol(atomic_number: int) -> str:
    """Returns the symbol of an element that the potential knows.

    Raises:
        DataError: it does not know the element.
    """
    from ase.data import chemical_symbols

    name = chemical_symbols[atomic_number]
    if name not in PARAMETERS:
        raise DataError(f"the EAM potential has no {name}; it knows {', '.join(PARAMETERS)}")
    return name


def evaluate(batch: GraphBatch) -> EAMResult:
    """Returns the energies, forces and stresses of structures.

    Args:
        batch: with all pairs closer than :func:`reach`, each in both directions.

    Raises:
        DataError: for an element that the potential does not know.
    """
    for number in batch.atomic_numbers.unique().tolist():
        symbol(number)
    one_way = _one_way(batch)
    senders, receivers, graph = (index[one_way] for index in (batch.senders, batch.receivers, batch.edge_graph))
    positions, cell, shifts = batch.positions.double(), batch.cell.double(), batch.shifts[one_way].double()
    vectors = positions[senders] + torch.einsum("ei,eij->ej", shifts, cell[graph]) - positions[receivers]
    vectors = vectors.detach().requires_grad_()
    with torch.enable_grad():
        atomic_energies, density = _atomic_energies(batch.atomic_numbers, vectors, senders, receivers)
        (pull,) = torch.autograd.grad(atomic_energies.sum(), vectors)

    forces = torch.zeros_like(positions).index_add_(0, receivers, pull).index_add_(0, senders, pull, alpha=-1)
    # Strain changes every vector by itself times the strain, so its gradient is the sum of the vectors' own.
    outer = torch.einsum("ei,ej->eij", vectors.detach(), pull)
    virial = torch.zeros_like(cell).index_add_(0, graph, outer)
    volume = torch.linalg.det(cell).abs()[:, None, None]
    stress = torch.where(volume > 0, virial / volume.clamp(min=torch.finfo(volume.dtype).tiny), 0.0)
    energy = volume.new_zeros(batch.num_samples).index_add_(0, batch.graph_index, atomic_energies.detach())
    return EAMResult(energy, forces, (stress + stress.mT) / 2, density.detach())


def _one_way(batch: GraphBatch) -> Bool[Tensor, "edge"]:
    """Keeps one of the two directions of each pair; of an atom and its own image, by the sign of the shift."""
    h, k, l = batch.shifts.unbind(1)  # noqa: E741
    forward = (h > 0) | ((h == 0) & ((k > 0) | ((k == 0) & (l > 0))))
    return (batch.senders < batch.receivers) | ((batch.senders == batch.receivers) & forward)


def _atomic_energies(
    atomic_numbers: Int[Tensor, "atom"],
    vectors: Float[Tensor, "pair 3"],
    senders: Int[Tensor, "pair"],
    receivers: Int[Tensor, "pair"],
) -> tuple[Float[Tensor, "atom"], Float[Tensor, "atom"]]:
    """Returns energy (eV) and electron density of each atom; the energy of a pair belongs to both of its atoms by
    halves.
    """
    distance = torch.linalg.vector_norm(vectors, dim=1)
    ends = torch.cat([senders, receivers])  # both ends of all pairs at once: half as many, twice as long operations
    at_end = PairParameters(*_gather(PairParameters._fields, atomic_numbers[ends]))
    x = torch.cat([distance, distance]) / at_end.r_e
    electrons = at_end.f_e * torch.exp(-at_end.beta * (x - 1)) * _decay(x - at_end.lambda_)
    repulsion = at_end.A * torch.exp(-at_end.alpha * (x - 1)) * _decay(x - at_end.kappa)
    # The attraction has the same shape as the electrons.
    like = repulsion - at_end.B / at_end.f_e * electrons

    of_sender, of_receiver = electrons.chunk(2)
    like_sender, like_receiver = like.chunk(2)
    pair = 0.5 * (of_receiver / of_sender * like_sender + of_sender / of_receiver * like_receiver)
    pair = pair * _taper(torch.minimum(*x.chunk(2)))

    seen_by = torch.cat([receivers, senders])
    density = distance.new_zeros(len(atomic_numbers)).index_add(0, seen_by, electrons * _taper(x))
    half_pairs = torch.zeros_like(density).index_add(0, seen_by, torch.cat([pair, pair]) / 2)
    return half_pairs + _embedding(density, atomic_numbers), density


def _decay(distance: Float[Tensor, "end"]) -> Float[Tensor, "end"]:
    """Computes 1 / (1 + d^20) by products: a power costs several times as much."""
    squared = distance * distance
    fourth = squared * squared
    eighth = fourth * fourth
    return 1 / (1 + eighth * eighth * fourth)


def _taper(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Falls from one to zero with two continuous derivatives; x is the distance over r_e."""
    t = ((x - TAPER_START) / (CUTOFF - TAPER_START)).clamp(0, 1)
    return 1 - t**3 * (10 - 15 * t + 6 * t**2)


def _embedding(density: Float[Tensor, "atom"], atomic_numbers: Int[Tensor, "atom"]) -> Float[Tensor, "atom"]:
    """Returns the energy (eV) of an atom in the electrons of its neighbors: a cubic, another cubic, and a power with a
    log.
    """
    p = EmbeddingParameters(*_gather(EmbeddingParameters._fields, atomic_numbers))
    begin, end = p.rho_n * p.rho_e, UPPER_BRANCH * p.rho_e
    t = density / begin - 1
    low = p.Fn0 + t * (p.Fn1 + t * (p.Fn2 + t * p.Fn3))
    t = density / p.rho_e - 1
    middle = p.F0 + t**2 * (p.F2 + t * p.F3)
    # Kept at its beginning elsewhere, where the logarithm may have no value and its gradient would be not a number.
    log = torch.log(torch.maximum(density, end) / p.rho_s)
    high = p.F_e * (1 - p.eta * log) * torch.exp(p.eta * log)
    return torch.where(density < begin, low, torch.where(density < end, middle, high))


def _gather(names: tuple[str, ...], atomic_numbers: Int[Tensor, "end"]) -> tuple[Float[Tensor, "end"], ...]:
    """Returns the named parameters of atoms, a tensor each."""
    return _table(names).to(atomic_numbers.device).index_select(1, atomic_numbers).unbind(0)


@cache
def _table(names: tuple[str, ...]) -> Float[Tensor, "parameter element"]:
    """Returns the parameters by atomic number; NaN where an element is unknown."""
    from ase.data import atomic_numbers as number_of

    table = torch.full((len(names), max(number_of.values()) + 1), math.nan, dtype=torch.float64)
    for name, values in PARAMETERS.items():
        table[:, number_of[name]] = torch.tensor(
            [values[COLUMNS.index(column)] for column in names], dtype=torch.float64
        )
    return table
