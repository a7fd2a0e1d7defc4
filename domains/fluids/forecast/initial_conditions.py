"""Prepares the initial conditions of a forecast of a flow."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from domains.fluids.data.batch import FlowBatch, Start
from domains.fluids.data.samples import FlowSamples
from domains.fluids.data.schema import FluidsStatistics
from sciml.core.duration import parse_hours
from sciml.core.errors import ConfigError
from sciml.domain.forecasting import PerturbedStarts
from sciml.forecast.ensemble import perturbed_members

EXAMPLE = "for example 0@100s: flow 0 of the test split at 100 s"


def initial_batch(
    source: FlowSamples, statistics: FluidsStatistics, init_time: str | None, starts: PerturbedStarts
) -> tuple[FlowBatch, float]:
    """Returns a batch whose samples are the perturbed initial conditions, and the hours between two frames.

    Args:
        init_time: ``TIME`` or ``NUMBER@TIME``: seconds since the start of a flow of the test split.

    Raises:
        ConfigError: for a flow or a time that the data do not have, or if no flow is held out.
    """
    start = _start(source, init_time)
    frame_hours = source.flows[start.data_set].data_set.interval / 3600
    sample = source.at(start, 1, 0)
    members = perturbed_members(sample.state, statistics.scales[start.data_set].std, starts)
    if sample.fluid is not None:
        members = members * sample.fluid
    return source.collate([replace(sample, state=state) for state in members]), frame_hours


def _start(source: FlowSamples, wanted: str | None) -> Start:
    if not source.starts:
        raise ConfigError(
            f"the {source.split} split has no flow to start from", key="data.splits",
            hint="name a file of flows, data.path=FILE, or hold some out, e.g. data.splits.test=1",
        )  # fmt: skip
    if wanted is None:
        return replace(source.starts[0], frame=0)
    match = re.fullmatch(r"(?:(\d+)@)?([^@]+)", wanted.strip())
    if match is None:
        raise ConfigError(f"{wanted!r} names no start", key="init_time", hint=EXAMPLE)
    seconds = 3600 * parse_hours(match[2], key="init_time", unit="s")
    flows = [(name, n) for name, f in source.flows.items() for n in range(len(f.trajectories[source.split]))]
    number = int(match[1] or 0)
    if number >= len(flows):
        raise ConfigError(
            f"there is no flow {number}", key="init_time", hint=f"the test split has 0 to {len(flows) - 1}"
        )
    start = Start(*flows[number], 0)
    trajectory = source.trajectory(start)
    times = trajectory.source.times[slice(*trajectory.frames)]
    frame = int(np.abs(times - seconds).argmin())
    data_set = source.flows[start.data_set].data_set
    if abs(times[frame] - seconds) > 0.5 * data_set.interval:
        wanted, nearest = (f"{time:.12g} {data_set.units[1]}".rstrip() for time in (seconds, times[frame]))
        # a bare number is of the unit of the data
        hint = f"the nearest is {nearest}, init_time={number}@{times[frame]:.12g}"
        raise ConfigError(f"flow {number} has no frame at {wanted}", key="init_time", hint=hint)
    return replace(start, frame=frame)
