"""Swaps of atoms on a lattice at many temperatures at once, with configurations exchanged between neighbors.

All chains (temperature, replica) try a swap of two unlike atoms in the same step, and one batch gives the energies of
all trials. A swap is taken with Metropolis's probability, so that chains sample the canonical ensemble at fixed
composition. Chains of neighboring temperatures exchange their configurations now and then, which frees cold ones.

Sources: Metropolis et al. (1953), https://doi.org/10.1063/1.1699114; Hukushima and Nemoto (1996),
https://doi.org/10.1143/JPSJ.65.1604 (exchanges).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Array = np.ndarray
BOLTZMANN = 8.617333262e-5
"""eV/K."""
Energy = Callable[[Int[Array, "structure site"]], Float[Array, "structure"]]
"""Gives the energies (eV) of structures that fill the sites with kinds of atoms."""


@dataclass
class Chains:
    """Holds the configurations of all chains, and the state of the draw.

    Attributes:
        kinds: of atoms on the sites, (temperature, replica, site).
        energies: eV, (temperature, replica).
        generator: of all that is drawn.
        exchanges: how often neighboring temperatures were asked for an exchange; its parity says which pairs are next.
        taken, tried: swaps, by temperature.
    """

    kinds: Int[Array, "temperature replica site"]
    energies: Float[Array, "temperature replica"]
    generator: np.random.Generator
    exchanges: int
    taken: Int[Array, "temperature"]
    tried: int

    @classmethod
    def start(cls, kinds: Int[Array, "site"], energy: Energy, temperatures: int, replicas: int, seed: int) -> Chains:
        """Starts every chain from atoms on random sites."""
        generator = np.random.default_rng(seed)
        drawn = generator.permuted(np.broadcast_to(kinds, (temperatures, replicas, len(kinds))), axis=-1)
        energies = energy(drawn.reshape(-1, len(kinds))).reshape(temperatures, replicas)
        return cls(drawn, energies, generator, 0, np.zeros(temperatures, dtype=np.int64), 0)

    def sweep(self, energy: Energy, temperatures: Float[Array, "temperature"]) -> None:
        """Tries as many swaps in each chain as there are sites, and then an exchange.

        Args:
            temperatures: K, increasing.
        """
        beta = 1 / (BOLTZMANN * temperatures[:, None])
        for _ in range(self.kinds.shape[-1]):
            trial = self._swapped()
            energies = energy(trial.reshape(-1, trial.shape[-1])).reshape(self.energies.shape)
            log_share = -beta * (energies - self.energies)
            taken = np.log(self.generator.random(log_share.shape)) < log_share
            self.kinds[taken], self.energies[taken] = trial[taken], energies[taken]
            self.taken += taken.sum(1)
            self.tried += taken.shape[1]
        self._exchange(beta)

    def _swapped(self) -> Int[Array, "temperature replica site"]:
        """Swaps two atoms of different kinds in each chain; pairs and their reverse are equally likely."""
        flat = self.kinds.reshape(-1, self.kinds.shape[-1])
        rows = np.arange(len(flat))
        first = self.generator.integers(flat.shape[1], size=len(flat))
        keys = self.generator.random(flat.shape)
        keys[flat == flat[rows, first][:, None]] = -1.0
        second = keys.argmax(1)
        trial = flat.copy()
        trial[rows, first], trial[rows, second] = flat[rows, second], flat[rows, first]
        return trial.reshape(self.kinds.shape)

    def _exchange(self, beta: Float[Array, "temperature 1"]) -> None:
        """Exchanges configurations of every second pair of neighboring temperatures."""
        lower = np.arange(self.exchanges % 2, len(self.energies) - 1, 2)
        self.exchanges += 1
        log_share = (beta[lower] - beta[lower + 1]) * (self.energies[lower] - self.energies[lower + 1])
        taken = np.log(self.generator.random(log_share.shape)) < log_share
        for place, replica in zip(*np.nonzero(taken), strict=True):
            pair = [lower[place], lower[place] + 1]
            for values in (self.kinds, self.energies):
                values[pair, replica] = values[pair[::-1], replica]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON has it, so that chains go on exactly where they were."""
        return {
            "kinds": self.kinds.tolist(),
            "energies": self.energies.tolist(),
            "generator": self.generator.bit_generator.state,
            "exchanges": self.exchanges,
            "taken": self.taken.tolist(),
            "tried": self.tried,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Chains:
        """Returns the chains that :meth:`to_dict` gave."""
        generator = np.random.default_rng()
        generator.bit_generator.state = values["generator"]
        arrays = np.array(values["kinds"]), np.array(values["energies"])
        return cls(*arrays, generator, values["exchanges"], np.array(values["taken"]), values["tried"])
