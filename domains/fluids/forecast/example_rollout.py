"""One test case for the pictures: forecast here, or read back from a forecast file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import netCDF4
import numpy as np
from torch import nn

from domains.fluids.data.batch import FlowSample, Start, collate
from domains.fluids.data.readers import open_sources
from domains.fluids.data.samples import FlowSamples
from domains.fluids.forecast.task import FlowPrediction, FluidsTask
from sciml.forecast.rollout import rollout
from sciml.report.gif import MOST_FRAMES


def forecast_example(task: FluidsTask, model: nn.Module, source: FlowSamples) -> dict[str, np.ndarray]:
    """Returns a forecast of the first test flow from its start to its end, beside it the truth and refined patches.

    Returns:
        ``data_set`` (its number in the schema), ``lead_times`` (s), ``forecast`` and ``truth`` (lead, variable, z, x),
        ``initial`` (variable, z, x), ``refined_0``, ``refined_1``, ... (lead, patch along z, patch along x) of each
        level that is refined, ``profiles`` where the flow has them, and ``fluid`` where it has obstacles.
    """
    if not source.starts:
        return {}  # nothing is tested
    start = source.starts[0]
    sample = source.at(start, source.strides[0], _steps_to_the_end(source, start, source.strides[0]))
    batch = collate([sample]).to(task.device)
    name = start.data_set
    leads, states, refined = [], [], []
    for step, prediction in rollout(task, model, batch):
        assert isinstance(prediction, FlowPrediction)
        leads.append(float(step.parts[name].next_lead_time[0]))
        states.append(prediction.values[name][0].cpu().numpy())
        forest = prediction.forests.get(name)
        if forest is not None and forest.geometry.cells == sample.state.shape[1:]:
            geometry, levels = forest.geometry, range(len(forest.levels) - 1)
            refined.append([forest.is_refined(n)[0].view(geometry.shape(n)).cpu().numpy() for n in levels])
    meshes = {f"refined_{n}": np.stack(each) for n, each in enumerate(zip(*refined, strict=True))}
    assert sample.targets is not None
    return {
        **_data_set_number(source, name),
        "lead_times": np.array(leads),
        "forecast": np.stack(states),
        "truth": sample.targets.numpy(),
        "initial": sample.state.numpy(),
        **{name: value.astype(np.uint8) for name, value in meshes.items()},
        **_surroundings(sample),
    }


def read_example(path: Path, source: FlowSamples) -> dict[str, np.ndarray]:
    """Returns a written forecast (the mean of its members), with the truth as far as the flow lasts.

    Returns:
        What :func:`forecast_example` does, but for the refined patches, and the truth is not a number at lead times
        behind the end of the flow; of many lead times every so many, so that a
        long forecast takes no more memory than a short one.
    """
    with netCDF4.Dataset(path) as file:
        start = Start(**json.loads(file.start))
    members = open_sources(str(path))
    every = slice(None, None, math.ceil((len(members[0].times) - 1) / MOST_FRAMES))
    states = np.mean([member.read(every) for member in members], axis=0)
    times = members[0].times[every] - members[0].times[0]
    interval = source.flows[start.data_set].data_set.interval
    stride = round(float(times[1]) / interval)
    known = min(len(states) - 1, _steps_to_the_end(source, start, stride))
    sample = source.at(start, stride, known)
    truth = {}
    if known:
        assert sample.targets is not None
        truth["truth"] = np.full_like(states[1:], np.nan)
        truth["truth"][:known] = sample.targets.numpy()
    arrays = {
        **_data_set_number(source, start.data_set),
        "lead_times": times[1:],
        "forecast": states[1:],
        "initial": states[0],
        **truth,
    }
    return {**arrays, **_surroundings(sample)}


def _data_set_number(source: FlowSamples, data_set: str) -> dict[str, np.ndarray]:
    return {"data_set": np.array(list(source.flows).index(data_set))}


def _surroundings(sample: FlowSample) -> dict[str, np.ndarray]:
    arrays = {}
    if sample.profiles is not None:
        arrays["profiles"] = sample.profiles.numpy()
    if sample.fluid is not None:
        arrays["fluid"] = sample.fluid[0].numpy().astype(np.uint8)
    return arrays


def _steps_to_the_end(source: FlowSamples, start: Start, stride: int) -> int:
    return (len(source.trajectory(start)) - 1 - start.frame) // stride
