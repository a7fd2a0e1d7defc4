"""A forecast of flows as a file that grows with each lead time, in the layout of simulated ensembles."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from domains.fluids.data.batch import FlowBatch
from domains.fluids.data.boundary import OBSTACLE
from domains.fluids.data.schema import FluidsSchema
from domains.fluids.data.writers.ensemble import Layout, write_flows
from sciml import __version__
from sciml.domain.protocol import Prediction


class ForecastFile:
    """Writes the start and one lead time after the other; members of the file are those of the ensemble.

    Every reader of ensembles reads it: a forecast can be started from, scored against and drawn like any flow.

    Args:
        batch: the start; of one data set.
        begins: time of the start, in the flow that it is from.
    """

    def __init__(self, path: Path, schema: FluidsSchema, batch: FlowBatch, begins: float = 0.0) -> None:
        import netCDF4

        self.begins = begins

        ((self.name, part),) = batch.parts.items()
        data_set = schema.data_sets[self.name]
        z, x = (
            first + np.arange(count) * step
            for first, count, step in zip(
                data_set.lowest, part.state.shape[2:], (data_set.dz, data_set.dx), strict=True
            )
        )
        profiles = None if part.profiles is None else part.profiles.cpu().numpy()
        constants = {}
        if part.fluid is not None:
            constants[OBSTACLE] = ~part.fluid[:, 0].cpu().numpy()
        if part.constants is not None:
            constants |= dict(zip(data_set.other_constants, part.constants.cpu().numpy().swapaxes(0, 1), strict=True))
        layout = Layout(
            len(part.state), data_set.variables, z, x, data_set.boundary, profiles, constants, data_set.units
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = netCDF4.Dataset(path, "w")
        record = {
            "title": f"Forecast from: {schema.title or self.name}",
            "source": f"sciml {__version__}",
            "start": asdict(part.starts[0]),
        }
        self.variables = layout.prepare(self.file, None, record)
        write_flows(self.file, part.flows)
        self._write(0.0, part.state)

    def append(self, lead_hours: float, prediction: Prediction) -> None:
        """Adds a lead time."""
        self._write(3600 * lead_hours, prediction.values[self.name])

    def close(self) -> None:
        self.file.close()

    def _write(self, seconds: float, states: Any) -> None:
        number = len(self.file.dimensions["time"])
        self.file["time"][number] = float(f"{self.begins + seconds:.12g}")
        for channel, variable in enumerate(self.variables):
            variable[:, number] = states[:, channel].cpu().numpy()
        self.file.sync()
