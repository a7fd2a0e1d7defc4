"""Lays a store on disk: a zarr group that xarray opens, fields chunked by time.

Zarr format 2 is written, which every version of zarr and xarray reads.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from domains.climate.data.calendar import WORLD, Calendar
from sciml.core.errors import DataError
from sciml.core.files import read_json
from sciml.data.zarr_codecs import check_codecs

FORMAT = "sciml-climate-store"
VERSION = 4
CHUNK_BYTES = 2**17
MAX_CHUNK_BYTES = 2**25
TIME_UNITS = "minutes since 1970-01-01"


def times_per_chunk(shape: tuple[int, int, int]) -> int:
    """Returns how many states (channel, latitude, longitude) of float32 make a chunk of about an eighth of a
    mebibyte: most reads want one state alone.
    """
    return max(1, CHUNK_BYTES // (4 * int(np.prod(shape))))


def create_array(
    group: Any,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dims: tuple[str, ...],
    *,
    compress: bool = True,
) -> Any:
    """Creates a float32 array filled with NaN, so that a chunk that was never written cannot pass for data."""
    from numcodecs import Blosc

    compressor = Blosc(cname="lz4", clevel=5, shuffle=Blosc.BITSHUFFLE) if compress else None
    chunks = tuple(min(c, max(s, 1)) for c, s in zip(chunks, shape, strict=True))
    array = group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype="float32",
        fill_value=np.float32(np.nan),
        compressors=compressor,
        overwrite=True,
    )
    array.attrs["_ARRAY_DIMENSIONS"] = list(dims)
    return array


def field_chunks(shape: tuple[int, int, int], times: int) -> tuple[int, int, int, int]:
    """Returns the chunks of (time, channel, latitude, longitude); channels are cut apart only where one state
    is very large.
    """
    channel_bytes = 4 * shape[1] * shape[2]
    return (times, max(1, min(shape[0], MAX_CHUNK_BYTES // channel_bytes)), shape[1], shape[2])


def read_rows(array: Any, rows: np.ndarray, channels: slice = slice(None)) -> np.ndarray:
    """Reads rows and channels of an array; rows that follow one another at once."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return np.asarray(array[int(rows[0]) : int(rows[-1]) + 1, channels])
    return np.asarray(array.oindex[rows, channels])


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """Writes small variables into a store, in place of what an interrupted run left of them."""
    for name in dataset.variables:
        shutil.rmtree(path / str(name), ignore_errors=True)
    dataset.to_zarr(path, mode="a", zarr_format=2, consolidated=False)


def time_coordinate(times: np.ndarray, calendar: Calendar) -> tuple[str, np.ndarray, dict[str, str]]:
    """Returns a coordinate as the CF conventions write it, in any calendar."""
    name = "proleptic_gregorian" if calendar == WORLD else calendar.name
    return ("time", times.astype("datetime64[m]").astype(np.int64), {"units": TIME_UNITS, "calendar": name})


def open_group(path: Path, mode: str) -> Any:
    """Opens a group; mode ``w`` empties it.

    Raises:
        DataError: where an array that is to be read could run code.
    """
    import zarr

    if mode == "r":
        check_codecs(str(path))
    open_any: Any = zarr.open_group
    return open_any(str(path), mode=mode, zarr_format=2 if mode == "w" else None)


def consolidate(path: Path) -> None:
    import zarr

    zarr.consolidate_metadata(str(path))


def is_store(path: str | Path) -> bool:
    """Says whether a path is a store of this project."""
    try:
        return bool(read_json(Path(path) / ".zattrs", dict[str, Any]).get("format") == FORMAT)
    except DataError:
        return False
