"""Makes ensembles of flows: ``scripts/simulate.py domain=fluids``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.fluids.data.writers import WRITERS, Ensemble
from domains.fluids.data.writers.ensemble import Layout
from domains.fluids.physics import PHYSICS
from domains.fluids.physics.make import frames_of, layout_of_physics
from domains.fluids.solver import CASES, Flow, run
from domains.fluids.solver.random_flows import draw
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.core.compiler import can_compile
from sciml.core.files import allocate, atomic_file, write_json
from sciml.core.lock import lock_output
from sciml.core.progress import track
from sciml.core.provenance import version
from sciml.data.staging import StagedParts
from sciml.distributed.world import pick_device

# What a run may be repeated with on another machine: it changes no value but the last bits.
PLACE = ("out", "workers", "device", "compile", "overwrite")


def simulate(config: SimulateConfig, *, keep_existing: bool = False) -> Path:
    """Draws flows, simulates them and writes them, whole or not at all.

    Beside what is written, a file of the same name with ``.json`` says how it was made. A run that was stopped goes on
    where it was with the same settings: finished batches wait in a hidden folder beside it. Memory holds one frame of
    a batch, whatever the length.

    Args:
        keep_existing: whether flows that another process has made in the meantime are good as they are.

    Returns:
        Path of the file or folder.

    Raises:
        ConfigError: it exists and is not to be replaced, or the device is not there.
        RunError: a flow blew up, or the disk is full.
    """
    path = Path(config.out)
    device = pick_device(config.device)
    with lock_output(path, _is_ours, overwrite=config.overwrite, keep_existing=keep_existing) as to_do:
        if not to_do:
            return path
        parts = StagedParts(path, _settings(config), ".npy")
        count = -(-config.num_members // config.batch)
        results = parts.make(partial(_make_part, config, device), count, config.workers)
        for _ in track(results, f"Simulating, {config.batch} flows each", count):
            pass
        ensemble = Ensemble(
            layout_of(config),
            np.array(config.times),
            [parts.path(number) for number in range(count)],
            _record(config),
            config.precision,
            flows_of(config),
        )
        write_json(_record_path(path), ensemble.record)
        WRITERS[config.format](path, ensemble)
        parts.remove()
    return path


def flows(config: SimulateConfig, first: int, last: int) -> list[Flow]:
    """Returns the flows with numbers from ``first`` up to ``last``; cases take turns. An original is alone."""
    if config.case is not None:
        return [CASES[config.case]][first:last]
    cases = config.cases
    return [draw(cases[index % len(cases)], config.spread, config.seed, index) for index in range(first, last)]


def flows_of(config: SimulateConfig) -> list[Flow]:
    """Returns all flows of miniWeather; none of other physics, whose files do not tell more than their constants."""
    return flows(config, 0, config.num_members) if config.is_miniweather else []


def layout_of(config: SimulateConfig) -> Layout:
    """Returns what the flows have in common, as files say it."""
    if not config.is_miniweather:
        return layout_of_physics(config)
    return Layout.of_weather(flows_of(config), config.written_grid)


def _make_part(config: SimulateConfig, device: str, path: Path, number: int) -> None:
    first, last = number * config.batch, min((number + 1) * config.batch, config.num_members)
    if config.is_miniweather:
        frames = _weather(config, device, flows(config, first, last))
    else:
        frames = frames_of(config, torch.device(device), first, last)
    written = next(frames)
    shape = (last - first, len(config.times), *written.shape[1:])
    with atomic_file(path) as temporary:
        values = np.lib.format.open_memmap(temporary, mode="w+", dtype=config.precision, shape=shape)
        allocate(temporary, temporary.stat().st_size)
        for index, fields in enumerate(chain([written], frames)):
            values[:, index] = fields.cpu().numpy()
        values.flush()


def _weather(config: SimulateConfig, device: str, some: list[Flow]) -> Iterator[Float[Tensor, "member 4 z x"]]:
    """Yields the fields of flows of miniWeather, frame by frame."""
    pays = device != "cpu" and config.compiling_pays and can_compile(torch.device(device))
    frames = run(
        some,
        config.grid,
        config.steps(),
        dtype=getattr(torch, config.precision),
        device=device,
        compiled=pays if config.compile is None else config.compile and device != "cpu",
        native=config.compile is not False,
        coarsen=config.coarsen,
    )
    yield from (frame.fields for frame in frames)


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _is_ours(path: Path) -> bool:
    return path.exists() and _record_path(path).exists()


def _settings(config: SimulateConfig) -> dict[str, Any]:
    """Returns what decides what is simulated, as JSON."""
    values = {key: value for key, value in asdict(config).items() if key not in PLACE}
    return {**values, "versions": {name: version(name) for name in ("sciml", "numpy")}}


def _record(config: SimulateConfig) -> dict[str, Any]:
    record = {"license": "Apache-2.0, as the project that made it", "settings": _settings(config)}
    if not config.is_miniweather:
        title = f"{PHYSICS[config.physics].title}, simulated, without units"
        return {
            "title": title,
            "name": config.physics,
            "source": f"domains/fluids/physics/{config.physics}.py",
            **record,
        }
    return {
        "title": "Simulated dry flows in a vertical plane",
        "name": "miniweather_ensemble",
        "source": "miniWeather's equations and scheme (https://github.com/mrnorman/miniWeather), computed anew",
        **record,
    }
