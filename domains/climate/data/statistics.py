"""Area-weighted statistics of a period, in one pass and bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from domains.climate.data.schema import cell_area_weights
from domains.climate.data.variable import Variable

MAX_LEAD_HOURS = 240.0
MAX_LEADS = 40
MIN_PAIRS = 2
CACHED_VALUES = 2**18
"""Values gone through together; few enough to stay in the processor's cache between the passes."""

ReadFields = Callable[[slice, slice], np.ndarray]
"""Fields (time, channel, latitude, longitude) of a range of times and a range of channels."""


class Moments:
    """Accumulates the weighted mean and variance of a stream, per channel, in float64.

    Blocks are centered on their own mean and merged pairwise, so that no digits are lost however large the mean.

    Source: Chan, Golub and LeVeque (1983), https://doi.org/10.1080/00031305.1983.10483115.
    """

    def __init__(self, num_channels: int) -> None:
        self.weight = np.zeros(num_channels)
        self.mean = np.zeros(num_channels)
        self.squares = np.zeros(num_channels)

    def update(self, fields: np.ndarray, row_weights: np.ndarray) -> None:
        """Adds fields (time, channel, latitude, longitude), each row with its area; rows' mean weight is 1.

        What is not a number does not count.
        """
        share = row_weights / row_weights.sum()
        part = max(1, CACHED_VALUES // fields[0].size)
        for start in range(0, len(fields), part):
            values = fields[start : start + part].astype(np.float64)
            if np.isnan(values).any():
                self._update_known(values, row_weights)
                continue
            mean = values.mean(axis=(0, 3)) @ share
            values -= mean[:, None, None]
            squares = np.einsum("tcyx,tcyx->cy", values, values) @ row_weights
            weight = float(values.shape[0] * values.shape[3] * row_weights.sum())
            self.merge(np.full(len(mean), weight), mean, squares)

    def _update_known(self, values: np.ndarray, row_weights: np.ndarray) -> None:
        known = ~np.isnan(values)
        weight = np.einsum("tcyx->cy", known.astype(np.float64)) @ row_weights
        values = np.where(known, values, 0.0)
        mean = np.einsum("tcyx->cy", values) @ row_weights / np.maximum(weight, np.finfo(float).tiny)
        values = np.where(known, values - mean[:, None, None], 0.0)
        self.merge(weight, mean, np.einsum("tcyx,tcyx->cy", values, values) @ row_weights)

    def merge(self, weight: np.ndarray, mean: np.ndarray, squares: np.ndarray) -> None:
        """Adds what another stream has gathered."""
        total = self.weight + weight
        share = weight / np.maximum(total, np.finfo(float).tiny)
        delta = mean - self.mean
        self.mean = self.mean + delta * share
        self.squares = self.squares + squares + delta**2 * (self.weight * share)
        self.weight = total

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.squares / np.maximum(self.weight, np.finfo(float).tiny))


@dataclass(frozen=True)
class FieldStatistics:
    """Holds the statistics of a period, in each channel's unit.

    Attributes:
        mean, std: (channel).
        lead_hours: (lead), increasing.
        increment_std: (lead, channel), of x(t + lead) - x(t) about its mean.
        target_mean, target_std: (channel), of what a model learns of diagnostic outputs.
        known: (channel, latitude, longitude), whether there is a value at any time.
    """

    mean: np.ndarray
    std: np.ndarray
    lead_hours: np.ndarray
    increment_std: np.ndarray
    target_mean: np.ndarray
    target_std: np.ndarray
    known: np.ndarray


def increment_leads(minutes: np.ndarray) -> np.ndarray:
    """Returns lead times in minutes for which increments are measured.

    All spans up to 240 h that lie between at least two pairs of times: the multiples of the step where times are
    even. Where these are more than 40, every n-th of them and the first.
    """
    counts: Counter[int] = Counter()
    for ahead in range(1, len(minutes)):
        spans = minutes[ahead:] - minutes[:-ahead]
        if spans.min() > 60 * MAX_LEAD_HOURS:
            break
        counts.update(spans[spans <= 60 * MAX_LEAD_HOURS].tolist())
    leads = np.array(sorted(span for span, count in counts.items() if count >= MIN_PAIRS))
    if not len(leads):
        leads = np.diff(minutes)[:1]
    stride = -(-len(leads) // MAX_LEADS)
    return np.unique(np.concatenate([leads[:1], leads[stride - 1 :: stride]]))


def compute_statistics(
    read: ReadFields,
    minutes: np.ndarray,
    variables: Sequence[Variable],
    latitude: np.ndarray,
    num_longitudes: int,
    max_bytes: float,
) -> Iterator[tuple[slice, FieldStatistics]]:
    """Yields the statistics of a period for one group of channels after the other.

    A group is as large as memory allows: the states of the longest lead time and a block beside them.

    Args:
        minutes: times of the period, increasing.
        variables: of each channel.
    """
    num_channels = len(variables)
    leads = increment_leads(minutes)
    behind = np.searchsorted(minutes, minutes - leads[-1])
    reach = int((np.arange(len(minutes)) - behind).max())
    block = int(np.clip(reach, 8, 64))
    # a float32 window over the longest lead and a block, twice while it moves, and four float64 copies of the block
    per_channel = len(latitude) * num_longitudes * (2 * 4 * (reach + block) + 4 * 8 * block)
    group = int(np.clip(max_bytes / per_channel, 1, num_channels))
    for start in range(0, num_channels, group):
        channels = slice(start, min(start + group, num_channels))
        yield channels, _group_statistics(read, minutes, channels, variables[channels], latitude, leads, block)


def _group_statistics(
    read: ReadFields,
    minutes: np.ndarray,
    channels: slice,
    variables: Sequence[Variable],
    latitude: np.ndarray,
    leads: np.ndarray,
    block: int,
) -> FieldStatistics:
    weights = cell_area_weights(latitude)
    fields, targets = Moments(channels.stop - channels.start), Moments(channels.stop - channels.start)
    learned = [number for number, variable in enumerate(variables) if variable.log_scale is not None]
    increments = [Moments(channels.stop - channels.start) for _ in leads]
    window = np.empty((0, 0, 0, 0))
    known = np.zeros((len(variables), 1, 1), dtype=bool)
    first = 0  # time of the window's first state
    for start in range(0, len(minutes), block):
        stop = min(start + block, len(minutes))
        new = read(slice(start, stop), channels)
        fields.update(new, weights)
        if not known.all():
            known = known | np.isfinite(new).any(axis=0)
        if learned:
            values = np.stack([variable.learned(new[:, number]) for number, variable in enumerate(variables)], axis=1)
            targets.update(values, weights)
        keep = int(np.searchsorted(minutes, minutes[start] - leads[-1]))
        window = new if start == 0 else np.concatenate([window[keep - first :], new])
        first = keep
        for lead, moments in zip(leads, increments, strict=True):
            wanted = minutes[start:stop] - lead
            earlier = np.searchsorted(minutes, wanted)
            there = np.flatnonzero(minutes[earlier] == wanted)
            if len(there):
                moments.update(new[there] - window[earlier[there] - first], weights)
    table = np.stack([moments.std for moments in increments])
    of_targets = targets if learned else fields
    return FieldStatistics(fields.mean, fields.std, leads / 60.0, table, of_targets.mean, of_targets.std, known)
