"""Paths of cyclones: minima of pressure that follow one another from one lead time to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from domains.climate.data.schema import ClimateSchema
from domains.climate.forecast.cyclones import DEPTH, FIELDS, KM_PER_DEGREE, Cyclones, minima
from domains.climate.forecast.example import WeatherExample

SPEED_KMH = 60.0
"""Fastest that a minimum may move; extratropical cyclones seldom go faster for a day. Its place is known to a cell, so
one that moves by no more than a cell is within reach, however short the step.
"""
GAIN = 2.0
"""Km by which a pair of minima is preferred for each hour that its track has lasted already."""


@dataclass
class Track:
    """Holds the places of one minimum, one for each time that it is followed through.

    Attributes:
        hours: since the beginning.
        latitude, longitude: degrees.
        value: of the field there.
    """

    hours: list[float] = field(default_factory=list)
    latitude: list[float] = field(default_factory=list)
    longitude: list[float] = field(default_factory=list)
    value: list[float] = field(default_factory=list)

    def extend(self, hours: float, place: tuple[float, float], value: float) -> None:
        self.hours.append(hours)
        self.latitude.append(place[0])
        self.longitude.append(place[1])
        self.value.append(value)

    @property
    def place(self) -> tuple[float, float]:
        """Returns where it was last seen."""
        return self.latitude[-1], self.longitude[-1]

    def reaches(self, hours: float, place: tuple[float, float], cell: tuple[float, float]) -> bool:
        """Says whether a minimum can be at a place from wherever it was before, at the speed of none faster than
        :data:`SPEED_KMH`.

        Args:
            cell: spacing of the grid in degrees of latitude and longitude, to which places are known.
        """
        diagonal = KM_PER_DEGREE * np.hypot(cell[0], cell[1] * np.cos(np.deg2rad(place[0])))
        before = zip(self.hours, self.latitude, self.longitude, strict=True)
        return all(distance_km((p, a), place) <= SPEED_KMH * (hours - time) + diagonal for time, p, a in before)


def find_tracks(
    fields: Float[np.ndarray, "time latitude longitude"],
    hours: Sequence[float],
    latitude: Sequence[float],
    longitude: Sequence[float],
    depth: float,
) -> list[Track]:
    """Follows minima from time to time: the nearest within reach go together, each with one other at most.

    Args:
        fields: on a grid that goes around the globe.
        hours: of the fields, increasing.
        depth: see :func:`domains.climate.forecast.cyclones.minima`.

    Returns:
        Tracks in order of their beginning; one that is seen once has one place.
    """
    rows, columns = np.asarray(latitude), np.asarray(longitude)
    masks = minima(torch.from_numpy(np.ascontiguousarray(fields)), rows, columns, depth).numpy()
    cell = float(np.abs(np.diff(rows)).max()), 360.0 / len(columns)
    tracks: list[Track] = []
    moving: list[Track] = []
    for number, (time, mask) in enumerate(zip(hours, masks, strict=True)):
        found = [(float(rows[row]), float(columns[column])) for row, column in zip(*np.nonzero(mask), strict=True)]
        values = [float(value) for value in fields[number][mask]]
        pairs = sorted(
            (distance_km(track.place, place) - GAIN * (time - track.hours[0]), old, new)
            for old, track in enumerate(moving)
            for new, place in enumerate(found)
            if track.reaches(time, place, cell)
        )
        after: dict[int, Track] = {}
        taken: set[int] = set()
        for _, old, new in pairs:
            if old not in taken and new not in after:
                taken.add(old)
                after[new] = moving[old]
        for new, place in enumerate(found):
            if new not in after:
                after[new] = Track()
                tracks.append(after[new])
            after[new].extend(time, place, values[new])
        moving = list(after.values())
    return tracks


def distance_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Returns the distance of two places (degrees north and east) along a great circle."""
    (p, a), (q, b) = np.deg2rad(one), np.deg2rad(other)
    half = np.sin((p - q) / 2) ** 2 + np.cos(p) * np.cos(q) * np.sin((a - b) / 2) ** 2
    return float(2 * np.rad2deg(np.arcsin(np.sqrt(min(1.0, half))))) * KM_PER_DEGREE


@dataclass(frozen=True)
class ComparedTracks:
    """Holds the tracks of a forecast and of the truth.

    Attributes:
        name: of the field that they are minima of.
        pairs: forecast and true track of each minimum that is there at the beginning and is followed in both.
    """

    name: str
    forecast: list[Track]
    truth: list[Track]
    pairs: list[tuple[Track, Track]]

    @classmethod
    def of(cls, example: WeatherExample) -> ComparedTracks | None:
        """Follows cyclones through a forecast and through the truth beside it; None where there can be none."""
        schema: ClimateSchema = example.schema
        if not Cyclones.fits(schema):
            return None
        name = next(name for name in FIELDS if name in schema.channels)
        initial = example.initial[example.channel(name)]
        own = float(np.nanstd(initial)) if example.std is None else float(example.std[example.channel(name)])
        depth, hours = DEPTH * own, [0.0, *(float(lead) for lead in example.lead_times)]

        def tracks(states: Float[np.ndarray, "lead channel latitude longitude"]) -> list[Track]:
            above = np.where(np.isnan(initial), np.nan, states[:, example.channel(name)])  # none below the ground
            fields = np.concatenate([initial[None], above])
            return [
                track
                for track in find_tracks(fields, hours, schema.latitude, schema.longitude, depth)
                if len(track.hours) > 1
            ]

        forecast = tracks(example.forecast)
        truth = [] if example.truth is None else tracks(example.truth)
        begun = {(track.latitude[0], track.longitude[0]): track for track in truth if track.hours[0] == 0}
        pairs = [(track, begun[key]) for track in forecast if (key := (track.latitude[0], track.longitude[0])) in begun]
        return cls(name, forecast, truth, [pair for pair in pairs if pair[0].hours[0] == 0])

    def distances(self) -> dict[float, list[float]]:
        """Returns the distances (km) between both tracks of all pairs by lead time (h)."""
        found: dict[float, list[float]] = {}
        for forecast, truth in self.pairs:
            places = dict(zip(truth.hours, zip(truth.latitude, truth.longitude, strict=True), strict=True))
            for hours, *place in zip(forecast.hours, forecast.latitude, forecast.longitude, strict=True):
                if hours and hours in places:
                    found.setdefault(hours, []).append(distance_km((place[0], place[1]), places[hours]))
        return found
