"""Samples of flows: a state, what came just before it, and what comes after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from domains.fluids.data.batch import FlowBatch, FlowSample, Start, collate
from domains.fluids.data.boundary import OBSTACLE
from domains.fluids.data.datasets import Flows, Trajectory
from domains.fluids.data.mirror import can_be_mirrored, turned_by_mirror
from domains.fluids.data.schema import DataSet, Scale
from sciml.core.errors import ConfigError
from sciml.nn.topology import Side


class FlowSamples:
    """Pairs a state with the states after each of some equal steps.

    Args:
        flows: data sets by name.
        split: ``train``, ``valid`` or ``test``.
        strides: frames that one step goes over; one is drawn for each sample among those that fit.
        num_steps: steps ahead of a sample.
        every: frames between starts.
        pushforward_steps: largest number of steps that start from the model's own state; drawn from 0 to it.
        noise: added to the first state, in standard deviations of the increments over its step.
        augment: see :class:`FluidsDataConfig`.
        scales: of the data sets; needed for noise.
        preload_gb: flows up to this size are kept in memory.
    """

    def __init__(
        self,
        flows: Mapping[str, Flows],
        split: str,
        strides: Sequence[int],
        num_steps: int,
        *,
        every: int = 1,
        pushforward_steps: int = 0,
        noise: float = 0.0,
        augment: str = "none",
        scales: Mapping[str, Scale] | None = None,
        preload_gb: float = 2.0,
    ) -> None:
        self.flows, self.split, self.strides, self.num_steps = flows, split, tuple(sorted(strides)), num_steps
        self.pushforward_steps, self.noise, self.scales = pushforward_steps, noise, scales or {}
        check_augmentation(augment, {name: f.data_set for name, f in flows.items()})
        self.augmentations = {name: Augmentation(f.data_set, augment) for name, f in flows.items()}
        self.starts = [start for name in flows for start in self._starts(name, every)]
        self._preload = self._size() <= preload_gb * 2**30
        self._kept: dict[tuple[str, int], np.ndarray] = {}

    def _starts(self, name: str, every: int) -> list[Start]:
        needed = self.strides[0] * self.num_steps
        starts = [
            Start(name, number, frame)
            for number, trajectory in enumerate(self.flows[name].trajectories[self.split])
            for frame in range(0, len(trajectory) - needed, every)
        ]
        if not starts and self.flows[name].trajectories[self.split]:
            longest = max(map(len, self.flows[name].trajectories[self.split]))
            raise ConfigError(
                f"the longest flow of the {self.split} split has {longest} frames, {needed + 1} are needed",
                key=f"data.splits.{self.split}",
                hint="give longer flows or a larger share, or look less far ahead (task.score_frames)",
            )
        return starts

    def _size(self) -> int:
        """Returns the bytes of the split's fields."""
        return sum(
            4 * len(trajectory) * len(trajectory.names) * int(np.prod(flows.data_set.shape))
            for flows in self.flows.values()
            for trajectory in flows.trajectories[self.split]
        )

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kept": {}}  # a spawned worker reads for itself

    def __len__(self) -> int:
        return len(self.starts)

    def group(self, index: int) -> str:
        """Returns the flow that a sample is from."""
        start = self.starts[index]
        return f"{start.data_set}/{self.trajectory(start).source.name}"

    def trajectory(self, start: Start) -> Trajectory:
        return self.flows[start.data_set].trajectories[self.split][start.trajectory]

    def sample(self, index: int, generator: np.random.Generator) -> FlowSample:
        """Returns a start with what is ahead of it, in physical units; the stride and all that is random are drawn."""
        start = self.starts[index]
        trajectory = self.trajectory(start)
        fitting = [s for s in self.strides if start.frame + s * self.num_steps < len(trajectory)]
        stride = fitting[int(generator.integers(len(fitting)))] if len(fitting) > 1 else fitting[0]
        return self.at(start, stride, self.num_steps, generator)

    def at(self, start: Start, stride: int, num_steps: int, generator: np.random.Generator | None = None) -> FlowSample:
        """Returns the sample of a start; without a generator as it is. Targets end where the flow does."""
        trajectory, data_set = self.trajectory(start), self.flows[start.data_set].data_set
        ahead = min(num_steps, (len(trajectory) - 1 - start.frame) // stride)
        states = self._read(start, start.frame, start.frame + ahead * stride + 1, stride)
        before = max(start.frame - 1, 0)
        previous = self._read(start, before, before + 1)[0]
        mask, profiles, constants = trajectory.source.mask, trajectory.profiles, trajectory.constants
        fluid = None
        if OBSTACLE in data_set.constants:
            fluid = torch.from_numpy(~mask if mask is not None else np.ones(data_set.shape, bool))[None]
        sample = FlowSample(
            start,
            torch.from_numpy(states[0]),
            torch.from_numpy(previous),
            (stride * data_set.interval,) * num_steps,
            torch.from_numpy(states[1:]) if ahead == num_steps else None,
            fluid,
            torch.from_numpy(profiles) if profiles is not None else None,
            torch.from_numpy(constants) if constants is not None else None,
            torch.from_numpy(trajectory.is_steady),
            trajectory.source.flow,
        )
        return sample if generator is None else self._disturbed(sample, generator)

    def load(self) -> None:
        """Reads what is kept in memory, so that damaged data are found before anything is done with them."""
        if self._preload:
            for name, flows in self.flows.items():
                for number in range(len(flows.trajectories[self.split])):
                    self._whole(Start(name, number, 0))

    def _whole(self, start: Start) -> np.ndarray:
        key = (start.data_set, start.trajectory)
        if key not in self._kept:
            trajectory = self.trajectory(start)
            self._kept[key] = trajectory.read(0, len(trajectory))
        return self._kept[key]

    def _read(self, start: Start, first: int, last: int, stride: int = 1) -> np.ndarray:
        if not self._preload:
            return self.trajectory(start).read(first, last, stride)
        return self._whole(start)[first:last:stride]

    def _disturbed(self, sample: FlowSample, generator: np.random.Generator) -> FlowSample:
        if not self.trajectory(sample.start).is_fixed:  # a moved copy of a jet that stays would be a flow of its own
            sample = self.augmentations[sample.start.data_set](sample, generator)
        if self.noise:
            scale = self.scales[sample.start.data_set]
            std = scale.increments_over(torch.tensor(sample.steps[:1]))[0] * scale.changes
            drawn = generator.standard_normal(tuple(sample.state.shape), dtype=np.float32)
            sample = replace(sample, state=sample.state + self.noise * std * torch.from_numpy(drawn))
        own = int(generator.integers(self.pushforward_steps + 1)) if self.pushforward_steps else 0
        return replace(sample, pushforward_steps=own)

    @staticmethod
    def collate(samples: Sequence[FlowSample]) -> FlowBatch:
        return collate(samples)


class Augmentation:
    """Applies symmetries of flows in x, where they are periodic; others stay as they are. What has a constant that a
    mirror would turn around, such as Coriolis's, is moved and not mirrored.
    """

    def __init__(self, data_set: DataSet, kind: str) -> None:
        self.kind = kind if data_set.boundary.x[0] is Side.PERIODIC else "none"
        self.mirrors = kind == "roll_mirror" and can_be_mirrored(data_set.constants)
        odd = torch.tensor(turned_by_mirror(data_set.variables))
        self.sign = torch.where(odd, -1.0, 1.0)[:, None, None]

    def __call__(self, sample: FlowSample, generator: np.random.Generator) -> FlowSample:
        """Moves everything in a sample alike."""
        if self.kind == "none":
            return sample
        shift = int(generator.integers(sample.state.shape[-1]))
        mirrored = self.mirrors and bool(generator.integers(2))

        def moved(
            fields: Shaped[Tensor, "... z x"] | None, sign: Float[Tensor, "variable 1 1"] | float = 1.0
        ) -> Shaped[Tensor, "... z x"] | None:
            if fields is None:
                return None
            fields = fields.roll(shift, dims=-1)
            return fields.flip(-1) * sign if mirrored else fields

        values: dict[str, Any] = {
            name: moved(getattr(sample, name), self.sign) for name in ("state", "previous", "targets")
        }
        fluid = moved(sample.fluid)
        return replace(sample, **values, fluid=None if fluid is None else fluid.bool())


def augmentation_that_fits(flows: Mapping[str, Flows]) -> str:
    """Returns the symmetries that flows are known to have: all of miniWeather's where x is periodic, else none."""
    for found in flows.values():
        told = all(one.source.flow is not None for group in found.trajectories.values() for one in group)
        if not told or found.data_set.boundary.x[0] is not Side.PERIODIC:
            return "none"
    return "roll_mirror"


def check_augmentation(kind: str, data_sets: Mapping[str, DataSet]) -> None:
    """Refuses what would move no flow.

    Raises:
        ConfigError: no data set is periodic along x.
    """
    sides = {name: data_set.boundary.x for name, data_set in data_sets.items()}
    if kind != "none" and all(left is not Side.PERIODIC for left, _ in sides.values()):
        name, (left, right) = next(iter(sides.items()))
        raise ConfigError(
            f"{name} is not periodic along x ({left.value} and {right.value})", key="data.augment", hint="use none"
        )
