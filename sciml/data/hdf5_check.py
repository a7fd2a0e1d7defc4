"""Refuses HDF5 files, those of NetCDF 4 among them, that reach beyond themselves or claim sizes that cannot be.

Links to other files, raw data in other files and virtual data sets would hand out whatever the reader may read. A data
set may claim any size in a few bytes, and its reader would take the memory.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sciml.core.errors import DataError

MOST_COMPRESSED = 10_000
"""How many times a file's own size its data may have: deflate gets to 1,032, and some chunks may be left unwritten."""
SMALL = 2**26
"""Bytes of a data set that are never too many."""


def check_hdf5(path: str) -> None:
    """Looks through the groups of a file, without reading values; passes over any other format.

    Raises:
        DataError: naming the link or data set; also where the file is damaged.
    """
    import h5py

    if not h5py.is_hdf5(path):
        return
    try:
        with h5py.File(path, "r", locking=False) as file:
            _check_group(file, path, set())
    except DataError:
        raise
    except Exception as error:  # a damaged file makes the library raise anything
        raise DataError(f"{path}: cannot be opened, it is damaged ({error})") from error


def _check_group(group: Any, path: str, seen: set[Any]) -> None:
    import h5py

    for name in group:
        where = f"{path}: {group.name.rstrip('/')}/{name}"
        kind = group.get(name, getlink=True)
        if isinstance(kind, h5py.ExternalLink):
            raise DataError(f"{where} is a link to another file, {kind.filename!r}, and is not followed")
        if not isinstance(kind, h5py.HardLink):  # a soft link leads to what is found under its own name
            continue
        item = group[name]
        if isinstance(item, h5py.Dataset):
            _check_dataset(item, path, where)
        elif isinstance(item, h5py.Group):
            place = h5py.h5o.get_info(item.id).addr
            if place not in seen:  # a group may hold itself
                seen.add(place)
                _check_group(item, path, seen)


def _check_dataset(dataset: Any, path: str, where: str) -> None:
    if dataset.is_virtual or dataset.external:
        raise DataError(f"{where} has its values in another file, and is not read; copy them into the file")
    size = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    there = Path(path).stat().st_size
    if size > max(SMALL, MOST_COMPRESSED * there):
        raise DataError(f"{where} cannot be {size} bytes large in a file of {there}; it is damaged")
