"""Symmetries of a planet without geography, by which states are turned in training."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.schema import is_mirrored
from domains.climate.data.states import States
from domains.climate.data.variables import parse_channel
from sciml.core.config import one_of
from sciml.core.errors import ConfigError
from sciml.domain.optional import AUTO

AugmentationName = Literal["auto", "none", "roll", "roll_mirror"]


class Augmentation:
    """Applies symmetries of a planet without geography.

    Args:
        store: whose channels and grid are turned.
        kind: ``none``, ``roll``, ``roll_mirror`` or ``auto``.

    Raises:
        ConfigError: an unknown kind; a planet with constant fields; a grid that is no mirror image of itself.
    """

    def __init__(self, store: States, kind: str) -> None:
        one_of(kind, get_args(AugmentationName), "data.augment")
        kind = store.augmentation if kind == AUTO else kind
        latitude = np.asarray(store.schema.latitude)
        if kind != "none" and store.schema.statics:
            raise ConfigError(
                f"this planet is not the same everywhere: it has {', '.join(store.schema.statics)}",
                key="data.augment",
                hint="use none",
            )
        if kind == "roll_mirror" and not is_mirrored(latitude):
            raise ConfigError("the grid's hemispheres are no mirror images", key="data.augment", hint="use roll")
        self.kind = kind
        odd = [parse_channel(name).variable.odd_under_mirror for name in store.schema.channels]
        self.sign = torch.where(torch.tensor(odd), -1.0, 1.0)[:, None, None]

    def __call__(
        self, states: Float[Tensor, "time channel latitude longitude"], generator: np.random.Generator
    ) -> Float[Tensor, "time channel latitude longitude"]:
        """Turns all states (time, channel, latitude, longitude) of a sample alike."""
        if self.kind == "none":
            return states
        states = states.roll(int(generator.integers(states.shape[-1])), dims=-1)
        if self.kind == "roll_mirror" and generator.integers(2):
            states = states.flip(-2) * self.sign
        return states
