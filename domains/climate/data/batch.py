"""A few weather states with the steps that lie ahead of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sciml.forecast.members import MemberNoise, independent_members


@dataclass(frozen=True)
class FieldBatch:
    """Holds states in physical units, and where they stand in time.

    Attributes:
        state: the current fields.
        initial: the fields at ``init_time``; baselines start from them, however far the rollout is.
        init_time: hours since 1970-01-01 00:00 UTC.
        lead_time: hours from ``init_time`` to ``state``; 0 before the first step.
        intervals: hours of the steps ahead; the same number of steps for every sample.
        targets: the truth after each step, or None where it is not known.
        members: the states of an ensemble that ``state`` is the mean of, or None.
        surroundings: what is given of a region's edges at hours since 1970, where there are no targets; see
            :class:`domains.climate.data.boundary.Surroundings`.
        noise: of each sample; what noise a random model is given follows from them. None gives none.
        steps_taken: how many steps lie behind ``state``.
    """

    state: Float[Tensor, "batch channel latitude longitude"]
    initial: Float[Tensor, "batch channel latitude longitude"]
    init_time: Float[Tensor, "batch"]
    lead_time: Float[Tensor, "batch"]
    intervals: Float[Tensor, "batch step"]
    targets: Float[Tensor, "batch step channel latitude longitude"] | None = None
    members: Float[Tensor, "batch member channel latitude longitude"] | None = None
    surroundings: Callable[[Float[Tensor, "batch"]], Tensor | None] | None = None
    noise: tuple[MemberNoise, ...] | None = None
    steps_taken: int = 0

    @property
    def num_samples(self) -> int:
        return len(self.state)

    @property
    def time(self) -> Float[Tensor, "batch"]:
        """Returns the hours since 1970 of ``state``."""
        return self.init_time + self.lead_time

    @property
    def valid_time(self) -> Float[Tensor, "batch"]:
        """Returns the hours since 1970 of the next step's end."""
        return self.time + self.intervals[:, 0]

    @property
    def next_lead_time(self) -> Float[Tensor, "batch"]:
        """Returns the hours from ``init_time`` to the next step's end."""
        return self.lead_time + self.intervals[:, 0]

    def to(self, device: torch.device | str) -> FieldBatch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {
            name: t.to(device, non_blocking=True) for name, t in tensors.items() if isinstance(t, Tensor)
        }
        return replace(self, **moved)

    def with_steps(self, hours: Sequence[float]) -> FieldBatch:
        """Returns the same states with other steps ahead and without targets."""
        steps = torch.tensor([tuple(hours)], dtype=self.intervals.dtype, device=self.intervals.device)
        return replace(self, intervals=steps.expand(self.num_samples, -1), targets=None)

    def first_steps(self, count: int) -> FieldBatch:
        """Returns the batch with so many steps ahead."""
        targets = None if self.targets is None else self.targets[:, :count]
        return replace(self, intervals=self.intervals[:, :count], targets=targets)

    def as_members(self, count: int) -> FieldBatch:
        """Returns each sample so many times in a row, as members of an ensemble with independent noise."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        repeated: dict[str, Any] = {
            name: tensor.repeat_interleave(count, dim=0)
            for name, tensor in tensors.items()
            if isinstance(tensor, Tensor)
        }
        noise = tuple(member for seed in self.seeds for member in independent_members(seed, count))
        return replace(self, **repeated, noise=noise)

    def members_on(self, states: Float[Tensor, "batch member channel latitude longitude"]) -> Iterator[FieldBatch]:
        """Yields the members of each sample's ensemble, each on a state of its own and with noise that adds up to
        zero.
        """
        count = states.shape[1]
        for number, state in enumerate(states.unbind(1)):
            noise = tuple(MemberNoise(seed, number, count) for seed in self.seeds)
            yield replace(self, state=state, members=None, noise=noise)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Returns a seed for each sample, that of its noise; 0 where none is given."""
        return tuple(one.seed for one in self.noise) if self.noise else (0,) * self.num_samples

    def advance(self, state: Float[Tensor, "batch channel latitude longitude"]) -> FieldBatch | None:
        """Returns the batch after its next step, standing on ``state``; None after the last step."""
        if self.intervals.shape[1] == 1:
            return None
        return replace(
            self,
            state=state,
            lead_time=self.next_lead_time,
            intervals=self.intervals[:, 1:],
            targets=None if self.targets is None else self.targets[:, 1:],
            steps_taken=self.steps_taken + 1,
        )


@dataclass(frozen=True)
class FieldSample:
    """Holds one sample of a batch: ``state`` (channel, latitude, longitude), ``targets`` (step, channel, ...)
    or None.
    """

    state: Float[Tensor, "channel latitude longitude"]
    init_time: float
    intervals: tuple[float, ...]
    targets: Float[Tensor, "step channel latitude longitude"] | None
    noise_seed: int = 0


def collate(samples: Sequence[FieldSample]) -> FieldBatch:
    """Gathers samples with the same number of steps into a batch at its initial time."""
    state = torch.stack([s.state for s in samples])
    targets = [s.targets for s in samples if s.targets is not None]
    return FieldBatch(
        state=state,
        initial=state,
        init_time=torch.tensor([s.init_time for s in samples], dtype=torch.float64),
        lead_time=torch.zeros(len(samples), dtype=torch.float64),
        intervals=torch.tensor([s.intervals for s in samples], dtype=torch.float64),
        targets=torch.stack(targets) if len(targets) == len(samples) else None,
        noise=tuple(MemberNoise(s.noise_seed) for s in samples),
    )
