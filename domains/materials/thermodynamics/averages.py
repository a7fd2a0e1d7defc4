"""Averages over chains with their errors: energies, heat capacities, and short-range order by shell of neighbors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from domains.materials.thermodynamics.monte_carlo import BOLTZMANN

Array = np.ndarray
BLOCKS = 2
"""Parts of each replica's samples whose means count as independent."""


class Estimate(NamedTuple):
    """Holds means and their standard errors."""

    mean: Array
    error: Array


def warren_cowley_by_shell(
    kinds: Int[Array, "*chain site"], elements: Sequence[int], neighbors: Sequence[Float[Array, "site site"]]
) -> Float[Array, "*chain shell element element"]:
    """Returns the short-range order of configurations; see :mod:`domains.materials.simulation.short_range_order`.

    Args:
        neighbors: for each shell how often each site has each other one in it.
    """
    one_hot = (kinds[..., None] == np.asarray(elements)).astype(np.float64)
    shares = one_hot.mean(-2)
    found = []
    for counts in neighbors:
        pairs = np.swapaxes(one_hot, -1, -2) @ counts @ one_hot
        found.append(1 - pairs / pairs.sum(-1, keepdims=True) / shares[..., None, :])
    return np.stack(found, axis=-3)


def jackknife(samples: Float[Array, "block *value"], of: Callable[[Array], Array]) -> Estimate:
    """Returns a function of the mean of samples, and its error from leaving out each block in turn."""
    number = len(samples)
    whole = of(samples.mean(0))
    if number < 2:
        return Estimate(whole, np.full(np.shape(whole), np.nan))
    left = np.stack([of(np.delete(samples, block, axis=0).mean(0)) for block in range(number)])
    return Estimate(whole, np.sqrt((number - 1) / number * np.square(left - left.mean(0)).sum(0)))


def blocks(series: Float[Array, "sample temperature replica *value"]) -> Float[Array, "block temperature *value"]:
    """Returns means over parts of each replica's samples."""
    parts = np.array_split(series, min(BLOCKS, len(series)))
    means = np.stack([part.mean(0) for part in parts])  # (part, temperature, replica, ...)
    moved = np.moveaxis(means, 2, 1)
    flat: Array = moved.reshape(-1, *moved.shape[2:])
    return flat


def energy_and_heat_capacity(
    series: Float[Array, "sample temperature replica"], temperatures: Float[Array, "temperature"], num_atoms: int
) -> tuple[Estimate, Estimate]:
    """Returns energies (eV/atom) and heat capacities of the configurations (Boltzmann constants an atom)."""
    center = series.mean((0, 2), keepdims=True)
    moments = blocks(np.stack([series - center, (series - center) ** 2], axis=-1))

    def capacity(mean: Float[Array, "temperature 2"]) -> Float[Array, "temperature"]:
        variance: Array = mean[:, 1] - mean[:, 0] ** 2
        return variance / (BOLTZMANN * temperatures) ** 2 / num_atoms

    energy = jackknife(moments, lambda mean: (mean[:, 0] + center[0, :, 0]) / num_atoms)
    return energy, jackknife(moments, capacity)


def ordering_temperature(capacity: Estimate, temperatures: Float[Array, "temperature"]) -> tuple[float, float] | None:
    """Returns where the heat capacity has its peak and half the distance of the temperatures there, K; None where it
    has none within them that stands out of its errors.
    """
    top = int(np.argmax(capacity.mean))
    if top in (0, len(temperatures) - 1):
        return None
    for end in (0, -1):
        if not capacity.mean[top] - capacity.mean[end] > 2 * np.hypot(capacity.error[top], capacity.error[end]):
            return None
    return float(temperatures[top]), float(temperatures[top + 1] - temperatures[top - 1]) / 4
