"""NetCDF files of flows: opened once a process, checked, and read by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from domains.fluids.data.readers.kept_open import kept_open
from sciml.core.duration import seconds_in
from sciml.core.errors import DataError, nearest
from sciml.data.classic_netcdf import check_whole
from sciml.data.hdf5_check import check_hdf5


@kept_open
def opened(file: str) -> Any:
    """Returns the open file, kept open for the next time.

    Raises:
        DataError: it is missing, damaged or no NetCDF file.
    """
    import netCDF4

    check_whole(file)
    check_hdf5(file)
    try:
        return netCDF4.Dataset(file)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{file}: cannot be opened, it is damaged or no NetCDF file ({error})") from error


def read(file: str, name: str, index: Any = slice(None)) -> np.ndarray:
    """Reads values of a variable; what is masked is not a number.

    Raises:
        DataError: a part of the file is damaged.
    """
    try:
        values = opened(file)[name][index]
    except (OSError, RuntimeError) as error:
        raise DataError(f"{file}: {name} cannot be read, the file is damaged ({error})") from error
    return np.ma.filled(values.astype(np.float64), np.nan) if np.ma.isMaskedArray(values) else np.asarray(values)


def read_times(file: str, name: str) -> tuple[np.ndarray, str]:
    """Returns the times of a file and their unit: s where the file's is a unit of time, else empty."""
    times = read(file, name).astype(np.float64)
    seconds = seconds_in(str(getattr(opened(file)[name], "units", "")))
    return (times, "") if seconds is None else (times * seconds, "s")


def require(file: str, names: Sequence[str], dims: tuple[str, ...]) -> None:
    """Refuses a file that lacks variables, or has them with other dimensions.

    Raises:
        DataError: names the variable.
    """
    variables = opened(file).variables
    for name in names:
        if name not in variables:
            raise DataError(f"{file}: no variable {name}; {nearest(name, variables)}")
        if variables[name].dimensions != dims:
            dimensions = ", ".join(variables[name].dimensions)
            raise DataError(f"{file}: {name} has the dimensions ({dimensions}), ({', '.join(dims)}) are needed")


@dataclass(frozen=True)
class NetCDFFrames:
    """Reads a variable a field, on (time, z, x)."""

    file: str

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        return np.stack([read(self.file, name, times) for name in variables], axis=1)
