"""The periods that sums, means and extremes speak of, as files state them: GRIB by the first and last step of each
message, CF by bounds of times or of forecast steps.

What a forecast has summed since its start, or since a bucket was emptied, becomes what each step adds: the difference
of two sums that begin together, in whichever files they lie.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from domains.climate.data.calendar import Calendar
from domains.climate.data.readers.field import FieldPiece
from domains.climate.data.readers.times import bounds_of, minutes_of_steps
from domains.climate.data.variable import Variable

STARTS = "hours_from_start_to_period"
"""Attribute of fields of GRIB: hours from the start of the forecast to where the period begins."""
NOT_STATED = (
    "does not say over which part of the forecast it is summed (take the GRIB file, or give its steps CF bounds)"
)
Span = tuple[np.ndarray, np.ndarray]


def stated_spans(
    array: xr.DataArray, dataset: xr.Dataset, times: np.ndarray, steps: np.ndarray, calendar: Calendar
) -> list[Span | None]:
    """Returns for each forecast step where the periods of a field begin and end at each time, as the file states it.

    Args:
        times: datetime64[m] of the dataset.
        steps: timedelta64[m] of the field.
    """
    if "point" in str(array.attrs.get("cell_methods", "")):
        return [None] * len(steps)
    if STARTS in array.attrs:
        start = np.timedelta64(round(60 * float(array.attrs[STARTS])), "m")
        return [(times + start, times + step) for step in steps]
    if (bounds := _bounds("step", array, dataset)) is not None:
        spans = minutes_of_steps(bounds, dataset["step"].attrs)
        return [(times + begin, times + end) for begin, end in spans]
    bounds = _bounds("time", array, dataset)
    edges = None if bounds is None else bounds_of(bounds, calendar)
    if edges is not None:
        return [(edges[:, 0] + step, edges[:, 1] + step) for step in steps]
    return [None] * len(steps)


def _bounds(name: str, array: xr.DataArray, dataset: xr.Dataset) -> np.ndarray | None:
    """Returns the bounds (n, 2) of a coordinate of a field; None where there are none."""
    if name not in array.coords:
        return None
    coordinate = dataset[name]
    key = str(coordinate.attrs.get("bounds", coordinate.encoding.get("bounds", "")))
    if key not in dataset.variables:
        return None
    values = np.atleast_2d(dataset[key].values)
    return values if values.shape == (coordinate.size, 2) else None


def is_unstated(variable: Variable, array: xr.DataArray, dataset: xr.Dataset) -> bool:
    """Says whether a field of a forecast may be summed since its start or since its last step, and nobody knows."""
    summed = variable.over == "sum" or array.attrs.get("GRIB_stepType") in ("accum", "avg")
    if variable.over == "instant" or not summed or "step" not in array.coords or not np.any(array["step"].values):
        return False
    return STARTS not in array.attrs and _bounds("step", array, dataset) is None


def end_together(pieces: Sequence[FieldPiece]) -> list[FieldPiece]:
    """Lets times be the ends of stated periods where fields at points in time are known then.

    Centers put the middle of a period, its beginning or its end.
    """
    points = [piece.times for piece in pieces if piece.ends is None]
    known = np.unique(np.concatenate(points)) if points else np.empty(0, "datetime64[m]")
    return [_with_times(piece, known) for piece in pieces]


def _with_times(piece: FieldPiece, known: np.ndarray) -> FieldPiece:
    if piece.begins is None or piece.ends is None:
        return piece
    if np.isin(piece.ends, known).sum() > np.isin(piece.times, known).sum():
        return replace(piece, times=piece.ends)
    return replace(piece, begins=piece.begins + (piece.times - piece.ends))


def one_after_another(pieces: Sequence[FieldPiece]) -> list[FieldPiece]:
    """Returns the pieces of one variable so that each value speaks of the time since the one before, as far as that can
    be taken or made of what the files have.
    """
    stated = [piece for piece in pieces if piece.begins is not None]
    if not stated or stated[0].variable.over == "instant":
        return list(pieces)
    begins = np.concatenate([piece.begins for piece in stated if piece.begins is not None])
    ends = np.concatenate([piece.times for piece in stated])
    order = np.lexsort((begins, ends))
    if len(pieces) == len(stated) and (begins[order][1:] >= ends[order][:-1]).all() and (begins < ends).all():
        return stated
    return _chosen(stated)


def _chosen(pieces: Sequence[FieldPiece]) -> list[FieldPiece]:
    found: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    beginnings: dict[int, set[int]] = defaultdict(set)
    for number, piece in enumerate(pieces):
        assert piece.begins is not None
        begins, ends = (moments.astype(np.int64).tolist() for moments in (piece.begins, piece.times))
        for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            if begin < end:  # nothing has fallen at the start itself
                found[begin, end].append((number, row))
                beginnings[end].add(begin)
    taken: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    adds_up = pieces[0].variable.over in ("sum", "mean")
    last = -(2**63)
    for end in sorted(beginnings):
        own = sorted(beginnings[end])
        both = [begin for begin in own if adds_up and (begin, last) in found]
        if both and own[-1] < last:
            (number, row), (other, earlier) = found[both[-1], end][0], found[both[-1], last][0]
            taken[number, other].append((row, earlier))
        else:
            for number, row in found[own[-1], end]:
                taken[number, -1].append((row, -1))
        last = end
    return [_part(pieces, number, other, np.array(rows)) for (number, other), rows in taken.items()]


def _part(pieces: Sequence[FieldPiece], number: int, other: int, rows: np.ndarray) -> FieldPiece:
    part = pieces[number].at(rows[:, 0])
    return part if other < 0 else part.since(pieces[other].at(rows[:, 1]))
