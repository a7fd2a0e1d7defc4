"""Where a forecast of a flow starts from, and by which steps it goes."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from domains.fluids.data.batch import FlowBatch, FlowSample, Start
from domains.fluids.data.samples import FlowSamples
from domains.fluids.data.schema import FluidsStatistics
from domains.fluids.forecast.task import FluidsTaskConfig
from sciml.core.duration import parse_hours
from sciml.core.errors import ConfigError
from sciml.domain.optional import ForecastRequest
from sciml.forecast.ensemble import perturbed

EXAMPLE = "for example 0@100s: flow 0 of the test split at 100 s"


def starting_batches(
    source: FlowSamples, statistics: FluidsStatistics, task: FluidsTaskConfig, request: ForecastRequest
) -> list[FlowBatch]:
    """A batch for each path of model steps to the lead time; its samples are the perturbed starts.

    Args:
        request: ``init_time`` is ``TIME`` or ``NUMBER@TIME``: seconds since the start of a flow of the test split.

    Raises:
        ConfigError: for a flow or a time that the data do not have, or a lead time that no step divides.
    """
    start = _start(source, request.init_time)
    interval = source.flows[start.data_set].data_set.interval
    frames = round(3600 * request.lead_hours / interval)
    if frames < 1 or abs(frames * interval - 3600 * request.lead_hours) > 1e-3 * interval:
        raise ConfigError(
            f"{3600 * request.lead_hours:g} s is not a multiple of the {interval:g} s between frames",
            key="lead_time",
            hint=f"the nearest that is: {max(frames, 1) * interval:g}s",
        )
    strides = [stride for stride in task.strides if frames % stride == 0]
    if request.every_hours is not None:
        strides = [s for s in strides if abs(s * interval - 3600 * request.every_hours) < 1e-3 * interval]
    if not strides:
        known = ", ".join(f"{stride * interval:g}s" for stride in task.strides)
        raise ConfigError(
            f"no step that the model was trained on ({known}) leads there", key="lead_time",
            hint=f"for example {max(1, frames // min(task.strides)) * min(task.strides) * interval:g}s",
        )  # fmt: skip
    chosen = strides if request.combine_intervals else [max(strides)]
    std = statistics.scales[start.data_set].std
    size, seed = request.perturbation, request.seed
    batches = []
    for stride in chosen:
        sample = source.at(start, stride, frames // stride)
        states = perturbed(sample.state[None], std, members=request.members, size=size, seed=seed)[0]
        members: list[FlowSample] = [replace(sample, state=state) for state in states]
        batches.append(source.collate(members))
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
