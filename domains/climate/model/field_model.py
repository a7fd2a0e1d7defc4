"""Any model from fields to fields as a climate model: a state on the sphere to its normalized increment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.schema import ClimateSchema
from domains.climate.model.forecaster import AXES, ENCODINGS
from domains.climate.model.topology import odd_of, topology_of
from sciml.core.errors import ConfigError
from sciml.models.field_model import FieldInputs, Variables
from sciml.models.field_models import FieldConfig, FieldForecaster
from sciml.models.uvit import UViTConfig
from sciml.nn.staged import ForwardPass


class ClimateFieldModel(FieldForecaster):
    """Maps a standardized state to its normalized increment over a lead time, by any model from fields to fields.

    It is called as :class:`ClimateViT` is. An untrained model returns exactly zero, that is persistence.

    Args:
        config: of the model; its kind decides which.
        channels: names of the variables that are predicted.
        constants: names of the variables that are only read: statics, forcings.
        latitude: degrees north of the usual grid's rows.
        longitude: degrees east of its columns.
        inputs: those of the channels that are also read; None for all.
        noise_dim: length of the noise that makes a member of an ensemble; 0 for a deterministic model.

    Raises:
        ConfigError: where an option names something unknown.
    """

    def __init__(
        self,
        config: FieldConfig,
        channels: Sequence[str],
        constants: Sequence[str] = (),
        *,
        latitude: Sequence[float],
        longitude: Sequence[float],
        inputs: Sequence[str] | None = None,
        noise_dim: int = 0,
    ) -> None:
        read = tuple(channels if inputs is None else inputs)
        super().__init__(config, Variables((*read, *constants), tuple(channels), ENCODINGS, AXES, noise_dim))
        self.channels, self.constants = tuple(channels), tuple(constants)
        self.inputs = read
        # Plain numbers and no buffers: nothing is lost when the model is built on the meta device.
        self.latitude, self.longitude = tuple(latitude), tuple(longitude)

    @classmethod
    def from_schema(
        cls, config: FieldConfig, schema: ClimateSchema, forcings: Sequence[str] = (), noise_dim: int = 0
    ) -> ClimateFieldModel:
        """Builds the model for a store: its channels are predicted, its statics and the forcings only read, and
        diagnostic outputs not read.

        Raises:
            ConfigError: a grid that is a single patch.
        """
        rows, columns = schema.grid_shape
        if isinstance(config, UViTConfig) and max(rows, columns) <= config.patch_size:
            raise ConfigError(
                f"a grid of {columns}x{rows} cells is a single patch of {config.patch_size}",
                key="model.patch_size",
                hint="use 1" if max(rows, columns) > 1 else "a grid of several cells",
            )
        constants = (*schema.statics, *forcings)
        where: dict[str, Any] = {"latitude": schema.latitude, "longitude": schema.longitude}
        return cls(config, schema.channels, constants, **where, inputs=schema.inputs, noise_dim=noise_dim)

    def forward_pass(
        self,
        fields: Float[Tensor, "batch channel latitude longitude"],
        channel_names: Sequence[str] | None,
        lead_time: Float[Tensor, "batch"],
        time: Float[Tensor, "batch"],
        constants: Float[Tensor, "*batch constant latitude longitude"] | None = None,
        *,
        constant_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        latitude: Sequence[float] | None = None,
        longitude: Sequence[float] | None = None,
        noise: Float[Tensor, "batch noise"] | None = None,
    ) -> ForwardPass:
        """Returns the way from a state to its normalized increment, in parts; see :meth:`ClimateViT.forward_pass`."""
        names = tuple(channel_names or self.inputs)
        outputs = tuple(output_names or channel_names or self.channels)
        if constants is not None and constants.shape[-3]:
            constants = constants.to(fields.dtype).expand(len(fields), -1, -1, -1)
            fields = torch.cat([fields, constants], dim=1)
            names += tuple(self.constants if constant_names is None else constant_names)
        degrees = (latitude or self.latitude, longitude or self.longitude)
        rows, columns = (torch.tensor(x, dtype=torch.float64, device=fields.device).deg2rad() for x in degrees)
        angles = dict(zip(AXES, torch.meshgrid(rows, columns, indexing="ij"), strict=True))
        scalars = {"lead_time": lead_time, "time_of_day": time, "time_of_year": time}
        inputs = FieldInputs(fields, names, outputs, scalars, angles, topology_of(*degrees), odd_of(names), noise)
        return self.net.forward_pass(inputs)
