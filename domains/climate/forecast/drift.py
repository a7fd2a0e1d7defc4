"""Whether long forecasts stay on the attractor: mean and variance of their last days beside those of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from domains.climate.data.schema import ClimateSchema, cell_area_weights
from domains.climate.data.states import OtherStates, States
from domains.climate.forecast.example_rollout import read_members
from sciml.core.result import CommandResult

SHORTEST_H = 20 * 24.0
"""Shorter forecasts are not judged: they still know how they started."""
LAST_H = 10 * 24.0
MOST_STATES = 200


@dataclass(frozen=True)
class Drift:
    """Compares a channel of a forecast with the training.

    Attributes:
        mean: difference of the means, in standard deviations of the training.
        variance: of the departures from the mean, over that of the training.
        eddies: variance of the departures from the zonal mean, over that of the training.
    """

    channel: str
    mean: float
    variance: float
    eddies: float


def drift_of(
    fields: Float[np.ndarray, "state channel latitude longitude"],
    normal: Float[np.ndarray, "_state channel latitude longitude"],
    schema: ClimateSchema,
) -> list[Drift]:
    """Compares states of a forecast with states of the training, channel by channel; those with gaps are left out."""
    area = cell_area_weights(schema.latitude)[:, None]

    def moments(states: np.ndarray) -> tuple[float, float, float]:
        values = states.astype(np.float64)
        mean = float((values * area).mean())
        eddies = values - values.mean(-1, keepdims=True)
        return mean, float(((values - mean) ** 2 * area).mean()), float((eddies**2 * area).mean())

    drifts = []
    for number, channel in enumerate(schema.channels):
        forecast, usual = (moments(states[:, number]) for states in (fields, normal))
        if all(np.isfinite(usual)) and usual[2] > 0:
            away = (forecast[0] - usual[0]) / usual[1] ** 0.5
            drifts.append(Drift(channel, away, forecast[1] / usual[1], forecast[2] / usual[2]))
    return drifts


def drift_summary(path: Path, states: States) -> CommandResult | None:
    """Compares the last days of a written forecast with the training; None where it is short, or the training's states
    are not at hand.
    """
    if isinstance(states, OtherStates):
        return None
    leads, last = read_members(path, states.schema, LAST_H)
    if leads[-1] < SHORTEST_H:
        return None
    drifts = drift_of(
        last.reshape(-1, *last.shape[2:]), states.read(states.spread("train", MOST_STATES)), states.schema
    )
    document = {"drift": [asdict(drift) for drift in drifts]}
    return CommandResult(document, _in_words(drifts, leads[-1])) if drifts else None


def _in_words(drifts: Sequence[Drift], lead_hours: float) -> str:
    furthest = max(drifts, key=lambda drift: abs(drift.mean))

    def span(name: str) -> str:
        ordered = sorted(drifts, key=lambda drift: getattr(drift, name))
        low, high = ordered[0], ordered[-1]
        return f"{getattr(low, name):.3g} ({low.channel}) to {getattr(high, name):.3g} ({high.channel})"

    days = f"days {(lead_hours - LAST_H) / 24:g} to {lead_hours / 24:g}"
    return (
        f"drift     {days} beside the training: means off by at most "
        f"{abs(furthest.mean):.2g} standard deviations ({furthest.channel}), variance times {span('variance')}, eddies "
        f"times {span('eddies')}"
    )
