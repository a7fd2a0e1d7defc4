"""HDF5 files, opened once a process."""

from __future__ import annotations

from typing import Any

from domains.fluids.data.readers.kept_open import kept_open
from sciml.core.errors import DataError, MissingExtraError


def open_library(purpose: str) -> Any:
    """Returns the package h5py. NetCDF's library cannot open The Well's files: their attributes are logical values.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", extra="hdf5", purpose=purpose) from error
    return h5py


@kept_open
def opened(file: str) -> Any:
    """Returns the open file, kept open for the next time.

    Raises:
        DataError: it is missing, damaged or no HDF5 file.
        MissingExtraError: h5py is not installed.
    """
    h5py = open_library(f"to read {file}")
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise DataError(f"{file}: cannot be opened, it is damaged or no HDF5 file ({error})") from error


def text(value: Any) -> str:
    """Returns an attribute, which may be bytes, as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
