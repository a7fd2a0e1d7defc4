"""Flows for a plan: their variables, grid and times are known, and nothing of what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from domains.fluids.data.batch import FlowSample, Start
from domains.fluids.data.boundary import OBSTACLE
from domains.fluids.data.data_config import MAIN, FluidsDataConfig
from domains.fluids.data.datasets import Flows, describe_flows, open_flows
from domains.fluids.data.readers import FlowSource
from domains.fluids.data.readers.source import Axis
from domains.fluids.data.samples import FlowSamples
from domains.fluids.data.schema import FluidsSchema, FluidsStatistics, Scale
from domains.fluids.data.writers.ensemble import PROFILES
from domains.fluids.solver.cases import Flow
from domains.fluids.solver.simulate import flows_of, layout_of
from domains.fluids.solver.simulate_config import SimulateConfig


class NoFrames:
    """Stands in for fields that are not there."""

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        raise AssertionError("a plan reads no fields")


class PlannedFlows(FlowSamples):
    """Gives samples of the shapes that a training's have, on the meta device."""

    def at(self, start: Start, stride: int, num_steps: int, generator: np.random.Generator | None = None) -> FlowSample:
        trajectory, data_set = self.trajectory(start), self.flows[start.data_set].data_set
        ahead = min(num_steps, (len(trajectory) - 1 - start.frame) // stride)
        variables, shape = len(trajectory.names), data_set.shape
        profiles, constants = trajectory.profiles, trajectory.constants
        return FlowSample(
            start,
            _empty(variables, *shape),
            _empty(variables, *shape),
            (stride * data_set.interval,) * num_steps,
            _empty(ahead, variables, *shape) if ahead == num_steps else None,
            _empty(1, *shape, dtype=torch.bool) if OBSTACLE in data_set.constants else None,
            None if profiles is None else torch.from_numpy(profiles),
            None if constants is None else torch.from_numpy(constants),
            _empty(variables, dtype=torch.bool),
            trajectory.source.flow,
        )


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Shaped[Tensor, "..."]:
    return torch.empty(shape, dtype=dtype, device="meta")


def planned_flows(config: FluidsDataConfig) -> tuple[FluidsSchema, dict[str, Flows]]:
    """Describes the flows of a run: by the headers of files, or as they would be simulated.

    Raises:
        ConfigError: variables that the data do not have, or too few trajectories for the splits.
        DataError: missing, damaged or uneven data.
    """
    if config.path is not None:
        return open_flows(config)
    return describe_flows(config, {MAIN: _to_simulate(config.simulate)})


def _to_simulate(config: SimulateConfig) -> list[FlowSource]:
    """Describes flows as :mod:`domains.fluids.data.readers.ensemble` would those that are simulated."""
    layout = layout_of(config)
    flows: Sequence[Flow | None] = flows_of(config) or [None] * config.num_members
    x, z = Axis.of(layout.x, "x"), Axis.of(layout.z, "z")
    winds = ("uwnd", "wwnd") if {"uwnd", "wwnd"} <= set(layout.variables) else None
    return [
        FlowSource(
            f"flow {member}", tuple(layout.variables), winds, np.array(config.times), x, z, layout.boundary,
            NoFrames(),
            profiles={} if layout.profiles is None else dict(zip(PROFILES, layout.profiles[member], strict=True)),
            constants={name: values[member] for name, values in layout.constants.items()},
            units=layout.units, flow=flow,
        )
        for member, flow in enumerate(flows)
    ]  # fmt: skip


def planned_statistics(flows: Mapping[str, Flows], strides: Sequence[int]) -> FluidsStatistics:
    """Returns numbers of the right shapes: zeros and ones."""
    return FluidsStatistics({name: _scale(found, strides) for name, found in flows.items()})


def _scale(flows: Flows, strides: Sequence[int]) -> Scale:
    data_set = flows.data_set
    variables, constants = len(data_set.variables), len(data_set.other_constants)
    seconds = torch.tensor([stride * data_set.interval for stride in strides], dtype=torch.float64)
    return Scale(
        torch.zeros(variables),
        torch.ones(variables),
        seconds,
        torch.ones(len(strides), variables),
        torch.tensor(data_set.shape),
        torch.zeros(constants),
        torch.ones(constants),
    )
