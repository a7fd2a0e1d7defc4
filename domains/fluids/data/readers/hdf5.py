"""HDF5 files, opened once a process.

NetCDF's library cannot open The Well's files: their attributes are logical values.
"""

from __future__ import annotations

from typing import Any

from domains.fluids.data.readers.kept_open import kept_open
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
