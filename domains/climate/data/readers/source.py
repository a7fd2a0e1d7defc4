"""A source of weather data as one whole: times, levels, grid and lazily read fields."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.readers.canonical import UNKNOWN, Reading, canonical_pieces
from domains.climate.data.readers.field import DIMS, Field, FieldPiece, Orientation
from domains.climate.data.readers.files import locate, open_file
from domains.climate.data.readers.periods import end_together, one_after_another
from domains.climate.data.variable import Role, Variable
from domains.climate.data.variables import Channel, find, identify
from sciml.core.errors import DataError, nearest

GRID_TOLERANCE_DEGREES = 1e-3
SYMMETRIES = ("longitude", "equator")


@dataclass(frozen=True)
class Source:
    """Holds everything known of some files before any field is read.

    Attributes:
        files: what was opened.
        times: datetime64[m], increasing; all that any variable has.
        levels: hPa, increasing.
        orientation: the common grid.
        fields: by long name; variables that change in time.
        statics: by long name; constant fields.
        title: what the data say of themselves.
        attribution: their source and license, as far as they say.
        symmetries: what they say of themselves in the attribute ``symmetries``: ``longitude`` (the same climate at all
            of them) and ``equator`` (mirrored hemispheres).
        calendar: that the times are counted in.
        left_out: why other fields in the files are not read, by name.
    """

    files: tuple[str, ...]
    times: np.ndarray
    levels: tuple[int, ...]
    orientation: Orientation
    fields: dict[str, Field]
    statics: dict[str, Field]
    title: str
    attribution: str
    calendar: Calendar = WORLD
    symmetries: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Sequence[str], member: int = 0, wanted: Collection[str] | None = None) -> Source:
        """Opens what a path stands for (see :func:`open_source`).

        Args:
            wanted: long names of the variables that are read and checked; None takes all that are known.
        """
        files = locate(path)
        readings: list[Reading] = []
        attrs: dict[str, Any] = {}
        symmetries = set(SYMMETRIES)
        for file in files:
            for dataset in open_file(file):
                readings.append(canonical_pieces(dataset, file, member, wanted))
                attrs = {**dataset.attrs, **attrs}
                symmetries &= {word.strip() for word in str(dataset.attrs.get("symmetries", "")).split(",")}
        pieces = [piece for reading in readings for piece in reading.pieces]
        reasons: dict[str, dict[str, None]] = defaultdict(dict)
        for name, why in ((name, why) for reading in readings for name, why in reading.left_out.items()):
            reasons[name][why] = None
        left_out = {name: ", ".join(several) for name, several in reasons.items()}
        if not pieces:
            raise DataError(f"{', '.join(files)}: {_nothing(files, left_out, wanted)}")
        num_members = max(reading.num_members for reading in readings)
        members = f" (ensemble member {member} of {num_members})" if num_members > 1 else ""
        title = str(attrs.get("title") or ("ERA5" if _is_ecmwf(attrs) else _stem(files[0]))) + members
        attribution = str(attrs.get("source") or attrs.get("institution") or "")
        calendar = _common_calendar(files, [reading for reading in readings if reading.pieces])
        source = cls._assemble(tuple(files), pieces, calendar, title, attribution)
        return replace(source, symmetries=tuple(sorted(symmetries)), left_out=left_out)

    @classmethod
    def _assemble(
        cls, files: tuple[str, ...], pieces: list[FieldPiece], calendar: Calendar, title: str, attribution: str
    ) -> Source:
        for piece in pieces:
            _check_same_grid(pieces[0], piece)
        constant = [piece for piece in pieces if piece.variable.role is Role.STATIC]
        together = end_together([piece for piece in pieces if piece.variable.role is not Role.STATIC])
        names = dict.fromkeys(piece.variable.name for piece in together)
        changing = {name: one_after_another([p for p in together if p.variable.name == name]) for name in names}
        times = np.unique(
            np.concatenate(
                [np.empty(0, "datetime64[m]"), *(piece.times for mine in changing.values() for piece in mine)]
            )
        )
        levels = tuple(sorted({level for piece in pieces for level in piece.levels}))
        fields = {
            name: Field(mine, times, levels if mine[0].variable.on_levels else (), calendar)
            for name, mine in changing.items()
            if mine
        }
        statics: dict[str, Field] = {}
        for piece in constant:  # the same in every file: the first will do
            statics.setdefault(piece.variable.name, Field([piece], np.empty(0, "datetime64[m]"), (), calendar))
        return cls(files, times, levels, pieces[0].orientation, fields, statics, title, attribution, calendar)

    def field(self, name: str) -> Field:
        """Returns a variable that changes in time, by any of its names.

        Raises:
            ConfigError: the name is unknown.
            DataError: the files do not have it.
        """
        variable = find(name)
        if variable.name not in self.fields:
            advice = "; ".join(self.reasons(variable)) or nearest(variable.name, self.fields)
            raise DataError(f"{self.label}: no variable {variable.name}; {advice}")
        return self.fields[variable.name]

    def reasons(self, variable: Variable) -> list[str]:
        """Says why fields of a variable's name were not read."""
        return [f"{name} is there, but {why}" for name, why in self.left_out.items() if identify(name) is variable]

    def channel_names(self) -> list[str]:
        """Returns the short names of all channels that change in time."""
        return [
            Channel(one.variable, level).name
            for one in self.fields.values()
            for level in (one.available_levels() or (None,))
        ]

    @property
    def label(self) -> str:
        """Names the files in messages: the first, and how many more."""
        return self.files[0] if len(self.files) == 1 else f"{self.files[0]} and {len(self.files) - 1} more"

    def to_dataset(self) -> xr.Dataset:
        """Returns the source as a lazy dataset; indexing reads only what is asked for."""
        coords: dict[str, Any] = {
            "time": (
                "time",
                self.times.astype("datetime64[ns]") if self.calendar == WORLD else self.calendar.dates(self.times),
            ),
            "latitude": ("latitude", self.orientation.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", self.orientation.longitude, {"units": "degrees_east"}),
        }
        if self.levels:
            coords["level"] = ("level", np.asarray(self.levels), {"units": "hPa"})
        variables = {}
        for name, one in {**self.fields, **self.statics}.items():
            lazy = _LazyArray(one)
            attrs = {"units": one.variable.unit, "short_name": one.variable.short}
            variables[name] = xr.Variable(lazy.dims, indexing.LazilyIndexedArray(lazy), attrs)
        return xr.Dataset(variables, coords, {"title": self.title, "source": self.attribution})


def open_source(path: str | Sequence[str], member: int = 0) -> xr.Dataset:
    """Opens weather data of any supported kind as one lazy dataset in this project's words.

    Args:
        path: NetCDF as CDS delivers it (old or new names), GRIB, archives of both, zarr in WeatherBench 2's or ARCO's
            layout; a file, a folder, a pattern, several of them, or a URL (``gs://``, ``s3://``, ``https://``).
        member: which one of an ensemble, counted from 0.

    Returns:
        Dimensions time, level (hPa), latitude (decreasing) and longitude (increasing in [0, 360)); long ERA5
        names; float32 in canonical units. Static fields have no time.

    Raises:
        DataError: missing, damaged or contradictory files; the sentence names file, variable and time.
        MissingExtraError: GRIB or cloud storage without the package for it.
    """
    return Source.open(path, member).to_dataset()


class _LazyArray(BackendArray):
    """Shows a field to xarray without the dimensions it lacks."""

    def __init__(self, field: Field) -> None:
        self.field = field
        has = (len(field.times) > 0, bool(field.levels), True, True)
        self.dims = tuple(dim for dim, there in zip(DIMS, has, strict=True) if there)
        self.shape = tuple(size for size, there in zip(field.shape, has, strict=True) if there)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        by_dim = dict(zip(self.dims, key, strict=True))
        sizes = dict(zip(DIMS, self.field.shape, strict=True))
        index = [np.atleast_1d(np.arange(sizes[dim])[by_dim.get(dim, slice(None))]) for dim in DIMS]
        block = self.field.read(index[0], index[1])[:, :, index[2][:, None], index[3]]
        dropped = [
            i
            for i, dim in enumerate(DIMS)
            if dim not in by_dim or (np.ndim(by_dim[dim]) == 0 and not isinstance(by_dim[dim], slice))
        ]
        return block.squeeze(axis=tuple(dropped))


def _check_same_grid(first: FieldPiece, other: FieldPiece) -> None:
    for name in ("latitude", "longitude"):
        a, b = getattr(first.orientation, name), getattr(other.orientation, name)
        if len(a) != len(b) or np.abs(a - b).max() > GRID_TOLERANCE_DEGREES:
            raise DataError(
                f"{first.file} and {other.file}: {first.variable.name} and {other.variable.name} are on "
                f"different grids ({len(a)} and {len(b)} {name}s); prepare them one by one"
            )


def _is_ecmwf(attrs: dict[str, Any]) -> bool:
    return "ecmf" in str(attrs.get("GRIB_centre", "")) or "ECMWF" in str(attrs.get("institution", ""))


def _stem(file: str) -> str:
    return file.rstrip("/").rsplit("/", 1)[-1]


def _common_calendar(files: Sequence[str], readings: Sequence[Reading]) -> Calendar:
    calendars = {reading.calendar for reading in readings if any(len(piece.times) for piece in reading.pieces)}
    if len(calendars) > 1:
        names = " and ".join(sorted(calendar.name for calendar in calendars))
        raise DataError(f"{files[0]} and others: their times are in the calendars {names}; prepare them one by one")
    return calendars.pop() if calendars else WORLD


def _nothing(files: Sequence[str], left_out: Mapping[str, str], wanted: Collection[str] | None) -> str:
    if wanted is not None:
        return f"there is nothing of {', '.join(sorted(wanted))}"
    reasons = [name if why == UNKNOWN else f"{name} ({why})" for name, why in sorted(left_out.items())]
    return "no variable that is known here; found " + (", ".join(reasons) if reasons else "none at all")
