"""Weighted sums over neighbors as matrix products, exact to any derivative.

``sums[i, r] = sum_k weights[i, r, k] states[senders[i, k]]`` is linear in the weights, which know the distances, and in
the states. Its derivatives are two products of the same kind, and theirs are again among the three; forces, and the
gradient of a loss of forces, so need no others. Neighbors' states are gathered anew in each: nothing as large as the
list of edges is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sciml.core.rounds import equal_rounds

Saved = tuple[Any, ...]

# Gathered numbers that a CPU works on at a time, so that they are still in its cache when they are needed.
CACHED_NUMBERS = 2**18


def neighbor_sums(
    weights: Float[Tensor, "atom radial place"],
    states: Float[Tensor, "atom channel"],
    senders: Int[Tensor, "atom_place"],
) -> Float[Tensor, "atom radial channel"]:
    """Sums over each atom's neighbors of their states, one for each kind of weight.

    Args:
        weights: of each place of each atom.
        states: what atoms send.
        senders: the atom at each place.
    """
    return _Sums.apply(weights.to(states.dtype), states, senders)


def _blocks(
    states: Float[Tensor, "atom channel"], senders: Int[Tensor, "atom_place"]
) -> Iterator[tuple[slice, Int[Tensor, "block_place"]]]:
    """Yields some atoms at a time, with the senders of their places."""
    count = len(states)
    width = max(len(senders), 1) // max(count, 1)
    fits = CACHED_NUMBERS // (width * states.shape[1]) if states.device.type == "cpu" else count
    step = max(fits, 1)
    whole, rest = divmod(count, step)
    for number in chain(equal_rounds(whole), [whole] if rest else []):
        first = number * step
        yield slice(first, first + step), senders[first * width : (first + step) * width]


def _gathered(
    states: Float[Tensor, "atom channel"], senders: Int[Tensor, "block_place"], num_atoms: int
) -> Float[Tensor, "block place channel"]:
    return states.index_select(0, senders).unflatten(0, (num_atoms, -1))


class _Sums(torch.autograd.Function):
    """Computes sums from weights and states."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Float[Tensor, "atom radial place"],
        states: Float[Tensor, "atom channel"],
        senders: Int[Tensor, "atom_place"],
    ) -> Float[Tensor, "atom radial channel"]:
        ctx.save_for_backward(weights, states, senders)
        sums = states.new_empty(*weights.shape[:2], states.shape[1])
        with torch.autocast(states.device.type, enabled=False):
            for atoms, who in _blocks(states, senders):
                own = weights[atoms]
                torch.bmm(own, _gathered(states, who, len(own)), out=sums[atoms])
        return sums

    @staticmethod
    def backward(ctx: Any, *grads: Float[Tensor, "atom radial channel"]) -> Saved:
        weights, states, senders = ctx.saved_tensors
        for_weights, for_states, _ = ctx.needs_input_grad
        return (
            _Products.apply(states, grads[0], senders) if for_weights else None,
            _Returns.apply(weights, grads[0], senders) if for_states else None,
            None,
        )


class _Products(torch.autograd.Function):
    """Computes weights from states and sums: each place's inner products."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Float[Tensor, "atom channel"],
        sums: Float[Tensor, "atom radial channel"],
        senders: Int[Tensor, "atom_place"],
    ) -> Float[Tensor, "atom radial place"]:
        ctx.save_for_backward(states, sums, senders)
        weights = sums.new_empty(*sums.shape[:2], len(senders) // max(len(states), 1))
        with torch.autocast(states.device.type, enabled=False):
            for atoms, who in _blocks(states, senders):
                own = sums[atoms]
                torch.bmm(own, _gathered(states, who, len(own)).transpose(1, 2), out=weights[atoms])
        return weights

    @staticmethod
    def backward(ctx: Any, *grads: Float[Tensor, "atom radial place"]) -> Saved:
        states, sums, senders = ctx.saved_tensors
        for_states, for_sums, _ = ctx.needs_input_grad
        return (
            _Returns.apply(grads[0], sums, senders) if for_states else None,
            _Sums.apply(grads[0], states, senders) if for_sums else None,
            None,
        )


class _Returns(torch.autograd.Function):
    """Computes states from weights and sums: what each sender gets back from its receivers."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Float[Tensor, "atom radial place"],
        sums: Float[Tensor, "atom radial channel"],
        senders: Int[Tensor, "atom_place"],
    ) -> Float[Tensor, "atom channel"]:
        ctx.save_for_backward(weights, sums, senders)
        states = sums.new_zeros(len(sums), sums.shape[2])
        with torch.autocast(sums.device.type, enabled=False):
            for atoms, who in _blocks(states, senders):
                states.index_add_(0, who, torch.bmm(weights[atoms].transpose(1, 2), sums[atoms]).flatten(0, 1))
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Float[Tensor, "atom channel"]) -> Saved:
        weights, sums, senders = ctx.saved_tensors
        for_weights, for_sums, _ = ctx.needs_input_grad
        return (
            _Products.apply(grads[0], sums, senders) if for_weights else None,
            _Sums.apply(weights, grads[0], senders) if for_sums else None,
            None,
        )
