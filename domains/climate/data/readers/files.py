"""From a path as users give it to opened files: one, several, a folder, a pattern, or somewhere in the cloud."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import xarray as xr

from domains.climate.data.readers.grib_messages import START, check_messages, open_messages
from sciml.core.errors import DataError, MissingExtraError
from sciml.data import files
from sciml.data.classic_netcdf import check_whole
from sciml.data.files import is_remote
from sciml.data.hdf5_check import check_hdf5
from sciml.data.zarr_codecs import check_codecs

NETCDF = (".nc", ".nc4", ".cdf", ".netcdf")
GRIB = (".grib", ".grb", ".grib2", ".grb2")
ZIP = (".zip",)
_ZIP_MAGIC = b"PK\x03\x04"
_CLOUD_PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "s3": "s3fs",
    "http": "aiohttp",
    "https": "aiohttp",
    "az": "adlfs",
    "abfs": "adlfs",
}


def is_zarr(path: str) -> bool:
    """Says whether a path is a zarr store: by its name, or because the folder has zarr's metadata."""
    if is_remote(path):
        return not path.lower().endswith(NETCDF + GRIB)
    markers = (".zgroup", ".zmetadata", "zarr.json")
    return Path(path).is_dir() and (
        path.rstrip("/").endswith(".zarr") or any((Path(path) / m).exists() for m in markers)
    )


def locate(path: str | Sequence[str]) -> list[str]:
    """Returns the files a path stands for, sorted.

    Args:
        path: a file, a zarr folder, a folder of files, a pattern such as ``era5/*.nc``, a URL, or several of them.

    Raises:
        DataError: there is none.
    """
    return files.locate(path, in_folder=_in_folder, kinds="NetCDF, GRIB or zarr data", is_whole=_is_whole)


def _is_whole(path: str) -> bool:
    return is_remote(path) or is_zarr(path) or Path(path).is_file()


def _in_folder(folder: Path) -> list[str]:
    inside = [str(entry) for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    return [file for file in inside if file.lower().endswith(NETCDF + GRIB + ZIP) or is_zarr(file)]


def open_file(file: str, *, archived: bool = False) -> list[xr.Dataset]:
    """Opens a file without reading its fields; GRIB and ZIP, as CDS delivers both, may come as several datasets.

    Args:
        archived: whether it comes from an archive, and so can be none.

    Raises:
        DataError: damaged or of an unknown format.
        MissingExtraError: an optional package is needed.
    """
    try:
        if is_zarr(file):
            return [_open_zarr(file)]
        local = _fetch(file)
        magic = _first_bytes(local)
        if magic == _ZIP_MAGIC and archived:
            raise DataError(f"{file}: is an archive within an archive; unpack it first")
        if magic == _ZIP_MAGIC:
            return [dataset for part in _unzipped(local) for dataset in open_file(part, archived=True)]
        if file.lower().endswith(GRIB) or magic == START:
            return _open_grib(local)
        check_whole(local)
        check_hdf5(local)
        return [xr.open_dataset(local, engine="netcdf4", cache=False, decode_timedelta=False)]
    except (DataError, MissingExtraError):
        raise
    except Exception as error:  # a broken file makes each library raise something of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{file}: cannot be opened, it is damaged or no NetCDF, GRIB or zarr data ({reason})"
        ) from error


def _open_zarr(file: str) -> xr.Dataset:
    if is_remote(file):
        _filesystem(file)  # to say what is missing in our own words
    check_codecs(file)
    return xr.open_zarr(file, chunks=None, decode_timedelta=False)


def _open_grib(file: str) -> list[xr.Dataset]:
    try:
        import cfgrib  # noqa: F401
    except Exception as error:  # cfgrib raises RuntimeError where its C library is not found
        raise MissingExtraError("cfgrib", extra="grib", purpose=f"to read {file}") from error
    check_messages(file)
    return open_messages(file)


def _first_bytes(file: str) -> bytes:
    with Path(file).open("rb") as opened:
        return opened.read(4)


@cache
def _unzipped(file: str) -> tuple[str, ...]:
    """Unpacks an archive into a temporary folder, which lasts as long as the process, and returns its data files.

    Raises:
        DataError: it is damaged, or there are no data in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="sciml-unzipped-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        with zipfile.ZipFile(file) as archive:
            size, free = sum(entry.file_size for entry in archive.infolist()), shutil.disk_usage(folder).free
            if size > free:
                raise DataError(
                    f"{file}: the archive needs {size} bytes, and {folder.parent} has {free}; unpack it first"
                )
            archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{file}: the archive is damaged ({error}); download it again") from None
    if is_zarr(str(folder)):
        return (str(folder),)
    parts: list[str] = []
    for place in (folder, *sorted(entry for entry in folder.rglob("*") if entry.is_dir())):
        if not any(is_zarr(str(above)) for above in (place, *place.parents) if folder in (above, *above.parents)):
            parts += _in_folder(place)
    if not parts:
        raise DataError(f"{file}: the archive has no NetCDF, GRIB or zarr data in it")
    return tuple(parts)


def _fetch(file: str) -> str:
    """Returns a local name of a file; a remote NetCDF or GRIB file is copied to a temporary folder first."""
    if not is_remote(file):
        return file
    import fsspec

    _filesystem(file)
    local: Any = fsspec.open_local(f"simplecache::{file}")
    return str(local[0] if isinstance(local, list) else local)


def _filesystem(url: str) -> Any:
    protocol = url.split("://")[0].split("::")[-1]
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtraError("fsspec", extra="cloud", purpose=f"to read {url}") from error
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        package = _CLOUD_PACKAGES.get(protocol, protocol)
        raise MissingExtraError(package, extra="cloud", purpose=f"to read {url}") from error
    except ValueError as error:
        raise DataError(f"{url}: unknown kind of address {protocol!r}; use gs://, s3:// or https://") from error
