"""Prepares the initial conditions of a forecast of a flow."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from domains.fluids.data.batch import FlowBatch, Start
from domains.fluids.data.samples import FlowSamples
from domains.fluids.data.schema import FluidsStatistics
from domains.fluids.forecast.task import FluidsTaskConfig
from sciml.core.duration import parse_hours
from sciml.core.errors import ConfigError
from sciml.domain.optional import ForecastRequest
from sciml.forecast.ensemble import perturbed_members
from sciml.forecast.intervals import requested_paths

EXAMPLE = "for example 0@100s: flow 0 of the test split at 100 s"


def initial_batches(
    source: FlowSamples, statistics: FluidsStatistics, task: FluidsTaskConfig, request: ForecastRequest
) -> list[FlowBatch]:
    """Returns a batch for each path of model steps to the lead time; its samples are the perturbed initial conditions.

    Args:
        request: ``init_time`` is ``TIME`` or ``NUMBER@TIME``: seconds since the start of a flow of the test split.

    Raises:
        ConfigError: for a flow or a time that the data do not have, or a lead time that no step divides.
    """
    start = _start(source, request.init_time)
    frame_hours = source.flows[start.data_set].data_set.interval / 3600
    batches = []
    for path in requested_paths(request, [stride * frame_hours for stride in task.strides], frame_hours):
        sample = source.at(start, round(path[0] / frame_hours), len(path))
        members = perturbed_members(sample.state, statistics.scales[start.data_set].std, request)
        batches.append(source.collate([replace(sample, state=state) for state in members]))
    return batches


def _start(source: FlowSamples, wanted: str | None) -> Start:
    if wanted is None:
        return replace(source.starts[0], frame=0)
    match = re.fullmatch(r"(?:(\d+)@)?([^@]+)", wanted.strip())
    if match is None:
        raise ConfigError(f"{wanted!r} names no start", key="init_time", hint=EXAMPLE)
    seconds = 3600 * parse_hours(match[2], key="init_time")
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
    if abs(times[frame] - seconds) > 0.5 * source.flows[start.data_set].data_set.interval:
        raise ConfigError(
            f"flow {number} has no frame at {seconds:g} s", key="init_time", hint=f"the nearest is {times[frame]:g}s"
        )
    return replace(start, frame=frame)
