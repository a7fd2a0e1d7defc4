"""Finds signs and orders that people mix up, by what a cheap physical guess expects; warns and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np
from jaxtyping import Float, Int

from domains.materials.data.composition import by_data_set, element_counts
from domains.materials.data.key_names import typed
from domains.materials.data.pair_fit import PairFeatures, correlation, fit, pair_features
from domains.materials.data.references import isolated_atoms
from domains.materials.data.statistics import ranges
from domains.materials.data.store import Arrays

Array = np.ndarray
MOST_EDGES, MOST_STRUCTURES, FEWEST = 150_000, 400, 8
"""How much is looked at, and how few structures say nothing."""
CLEAR, BETTER = 0.4, 0.25
"""A correlation that says something, and how much better another convention must fit."""
SHEAR = ((1, 2), (0, 2), (0, 1))
NAMES = ("yz", "xz", "xy")


def check_conventions(arrays: Arrays, elements: tuple[int, ...]) -> list[str]:
    """Returns warnings: forces of the wrong sign, stress of another sign or order, energies of atoms as totals."""
    indices = _some(arrays)
    if len(indices) < FEWEST or "forces" not in arrays.labels:
        return list(_sizes(arrays, elements))
    features = pair_features(arrays, indices, elements)
    forces = arrays.labels["forces"][ranges(arrays.atom_offsets, indices)].ravel()
    if not np.abs(forces).max() > 1e-6:
        return list(_sizes(arrays, elements))
    coefficients = fit(features.forces, forces)
    sign = -1.0 if correlation(features.repulsion, forces) < -CLEAR / 2 else 1.0
    explained = correlation(features.forces @ coefficients, forces)
    warnings = []
    if explained > CLEAR:
        slope, follows = _energy_slope(arrays, indices, elements, features, coefficients)
        if sign < 0 or follows < -CLEAR:
            sign = -1.0
            warnings.append(
                "forces seem to have the opposite sign: they push atoms together that are close, or do not go down in "
                "energy; forces are minus the gradient"
            )
        warnings += _per_atom(arrays, indices, slope * sign, follows * sign)
        warnings += _stress(arrays, indices, features, sign * coefficients)
    return warnings or list(_sizes(arrays, elements))


def _some(arrays: Arrays) -> Int[Array, "structure"]:
    """Returns structures with forces, spread over the set, of not too many edges."""
    if "forces" not in arrays.labels:
        return np.zeros(0, dtype=np.int64)
    having = np.flatnonzero(arrays.masks["forces"] & (arrays.num_edges > 0))
    chosen = np.random.default_rng(0).permutation(having)[:MOST_STRUCTURES]
    few = chosen[np.cumsum(arrays.num_edges[chosen]) <= MOST_EDGES]
    return np.sort(few)


def _energy_slope(
    arrays: Arrays,
    indices: Int[Array, "structure"],
    elements: tuple[int, ...],
    features: PairFeatures,
    coefficients: Float[Array, "coefficient"],
) -> tuple[float, float]:
    """Returns by how much energies differ for each eV that the forces' fit expects, and how well they follow it."""
    if "energy" not in arrays.labels:
        return 1.0, 0.0
    known = arrays.masks["energy"][indices]
    counts = element_counts(arrays.atomic_numbers, arrays.atom_offsets, elements)[indices[known]]
    atoms = counts.sum(1, keepdims=True)
    expected = (features.energy[known] @ coefficients) / atoms[:, 0]
    given = arrays.labels["energy"][indices[known]] / atoms[:, 0]
    # composition and volume move energies by more than a potential of pairs knows
    volume = np.abs(np.linalg.det(arrays.cell[indices[known]]))[:, None] / atoms
    shares = counts / atoms
    pairs = [shares[:, [place]] * shares[:, place + 1 :] for place in range(shares.shape[1])]
    own = by_data_set(shares, arrays.branch[indices[known]])
    known_to = np.concatenate([own, shares * volume, shares * volume**2, volume**3, *pairs], axis=1)
    if len(expected) < 2 * known_to.shape[1]:
        return 1.0, 0.0
    expected, given = (
        values - known_to @ np.linalg.lstsq(known_to, values, rcond=None)[0] for values in (expected, given)
    )
    size = float(np.vdot(expected, expected))
    return (float(np.vdot(expected, given)) / size if size else 1.0), correlation(expected, given)


def _per_atom(arrays: Arrays, indices: Int[Array, "structure"], slope: float, follows: float) -> Iterator[str]:
    size = float(np.median(arrays.num_atoms[indices]))
    if size < 4 or follows < CLEAR or slope <= 0:
        return
    if abs(np.log(slope * size)) < np.log(size) / 3:
        yield (
            "energies seem to be of one atom, given as those of structures: they change too little for the forces; "
            f"{typed('labels.energy')}={{key: KEY, unit: eV/atom}}"
        )
    elif abs(np.log(slope / size)) < np.log(size) / 3:
        yield (
            "energies seem to be of structures, given as those of one atom; "
            f"{typed('labels.energy')}={{key: KEY, unit: eV}}"
        )


def _stress(
    arrays: Arrays, indices: Int[Array, "structure"], features: PairFeatures, coefficients: Float[Array, "coefficient"]
) -> Iterator[str]:
    """Compares shear and differences of the diagonal with those of the fit, in every order and both signs."""
    if "stress" not in arrays.labels:
        return
    known = arrays.masks["stress"][indices]
    if known.sum() < FEWEST:
        return
    given = arrays.labels["stress"][indices[known]]
    expected = features.stress[known] @ coefficients
    off = np.array([given[:, i, j] for i, j in SHEAR])
    wanted = np.array([expected[:, i, j] for i, j in SHEAR])
    diagonal = np.array([given[:, i, i] for i in range(3)])
    along = np.array([expected[:, i, i] for i in range(3)])
    # what all structures or directions share says nothing of signs
    diagonal, along = (values - values.mean(0) for values in (diagonal, along))
    fits = {order: correlation(off[list(order)], wanted) for order in permutations(range(3))}
    straight = correlation(diagonal, along)
    best = max(fits, key=lambda order: abs(fits[order]))
    here = fits[0, 1, 2]
    sheared = abs(fits[best]) > CLEAR
    negative = (fits[best] < 0 and sheared) if sheared else straight < -CLEAR
    if negative:
        yield (
            "stress seems to have the opposite sign (VASP's, or a virial): structures that are stretched want to "
            f"stretch further; {typed('labels.stress')}={{key: KEY, unit: ..., convention: vasp}}"
        )
    if sheared and abs(fits[best]) > abs(here) + BETTER:
        order = ", ".join(NAMES[place] for place in np.argsort(best))
        yield (
            f"stress seems to be in another order: its fourth to sixth numbers fit as {order} (correlation "
            f"{abs(fits[best]):.2f}) rather than as {', '.join(NAMES)} ({abs(here):.2f}), ASE's; VASP's is xy, yz, xz"
        )


def _sizes(arrays: Arrays, elements: tuple[int, ...]) -> Iterator[str]:
    """Compares energies that grow with the structure with those that do not, where sizes differ."""
    if "energy" not in arrays.labels:
        return
    having = np.flatnonzero(arrays.masks["energy"] & ~isolated_atoms(arrays))[: 10 * MOST_STRUCTURES]
    atoms = arrays.num_atoms[having].astype(np.float64)
    if len(having) < FEWEST or atoms.max() < 1.5 * atoms.min():
        return
    counts = element_counts(arrays.atomic_numbers, arrays.atom_offsets, elements)[having]
    energies, shares = arrays.labels["energy"][having], by_data_set(counts / atoms[:, None], arrays.branch[having])
    misfits = []
    for values in (energies / atoms, energies):
        rest = values - shares @ np.linalg.lstsq(shares, values, rcond=None)[0]
        misfits.append(float(np.linalg.norm(rest)) / max(float(np.linalg.norm(values)), 1e-12))
    if misfits[1] < 0.2 * misfits[0] and misfits[0] > 0.1:
        yield (
            "energies seem to be of one atom, given as those of structures: they do not grow with the number of atoms; "
            f"{typed('labels.energy')}={{key: KEY, unit: eV/atom}}"
        )
