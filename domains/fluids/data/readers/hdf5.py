"""HDF5 files, opened once a process.

NetCDF's library cannot open The Well's files: their attributes are logical values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.kept_open import kept_open
from domains.fluids.data.readers.source import FlowSource
from sciml.core.errors import DataError
from sciml.data.hdf5_check import check_hdf5


@kept_open
def opened(file: str) -> Any:
    """Returns the open file, kept open for the next time.

    Raises:
        DataError: it is missing, damaged or no HDF5 file.
    """
    import h5py

    check_hdf5(file)
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise DataError(f"{file}: cannot be opened, it is damaged or no HDF5 file ({error})") from error


def text(value: Any) -> str:
    """Returns an attribute, which may be bytes, as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def attribute(item: Any, key: str, name: str) -> Any:
    """Returns an attribute of a group or data set.

    Raises:
        DataError: it is not there.
    """
    if key not in item.attrs:
        what = item.name.strip("/") or "the file"
        found = ", ".join(item.attrs) or "none"
        raise DataError(f"{name}: {what} has no attribute {key}; found {found}")
    return item.attrs[key]


Opener = Callable[[str, Boundary | None], Iterator[FlowSource]]


def laid_out_as(schema: str) -> Callable[[Opener], Opener]:
    """Makes one sentence of whatever else h5py says of a file that is not laid out as it should be."""

    def wrapped(opener: Opener) -> Opener:
        @wraps(opener)
        def open_file(name: str, boundary: Boundary | None) -> Iterator[FlowSource]:
            try:
                yield from opener(name, boundary)
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, OSError) as error:
                said = str(error).strip("'\"")
                raise DataError(f"{name}: is damaged or not laid out as {schema} ({said})") from error

        return open_file

    return wrapped
