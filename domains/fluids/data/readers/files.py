"""From a path as users give it to sources: a file, a folder, a pattern, or several of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.amira import open_amira
from domains.fluids.data.readers.cgl import is_cgl, open_cgl
from domains.fluids.data.readers.ensemble import is_ensemble, open_ensemble
from domains.fluids.data.readers.hdf5 import opened as opened_hdf5
from domains.fluids.data.readers.miniweather import is_miniweather, open_miniweather
from domains.fluids.data.readers.netcdf import opened as opened_netcdf
from domains.fluids.data.readers.pdebench import open_pdebench
from domains.fluids.data.readers.planes import is_plane, open_planes
from domains.fluids.data.readers.source import FlowSource
from domains.fluids.data.readers.vti import VTIFile, open_vti
from domains.fluids.data.readers.well import is_well, open_well
from domains.fluids.solver import VARIABLES
from sciml.core.errors import DataError
from sciml.data import files

Opener = Callable[[str, Boundary | None], Iterable[FlowSource]]

NETCDF = (".nc", ".nc4", ".cdf")
HDF5 = (".hdf5", ".h5")
AMIRA = (".am",)
VTK = (".vti",)
GRID_TOLERANCE = 1e-4


def open_sources(path: str | Sequence[str], boundary: Boundary | None = None) -> list[FlowSource]:
    """Opens flows of any supported kind; fields are not read.

    Args:
        path: NetCDF of miniWeather, of this project's ensembles, of CGL @ ETHZ or of fields in a plane, AmiraMesh,
            VTK's image data, HDF5 of The Well or PDEBench; a file, a folder, a pattern, or several of them.
        boundary: what is at the sides, where the files do not tell or are wrong.

    Returns:
        One for each trajectory, all with the same variables on the same grid.

    Raises:
        DataError: missing or damaged files, files of an unknown kind, or grids that differ.
    """
    sources = [source for opener, file in _openers(locate(path)) for source in opener(file, boundary)]
    for source in sources[1:]:
        _check_alike(sources[0], source)
    return sources


def _openers(found: Sequence[str]) -> Iterator[tuple[Opener, str]]:
    """Yields how each file is opened; VTK's files for one time each are a flow together, those of each folder."""
    series: dict[Path, list[str]] = {}
    for file in found:
        if Path(file).suffix.lower() in VTK and VTIFile.read(file).points[2] == 1:
            series.setdefault(Path(file).parent, []).append(file)
    for file in found:
        together = series.get(Path(file).parent, [])
        if file not in together:
            yield _opener(file), file
        elif file == together[0]:
            yield partial(_open_series, sorted(together, key=_natural)), file


def _open_series(together: Sequence[str], _: str, boundary: Boundary | None) -> Iterable[FlowSource]:
    return open_vti(together, boundary)


def _natural(file: str) -> list[str | int]:
    """Sorts ``flow_9`` before ``flow_10``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", Path(file).name)]


def locate(path: str | Sequence[str]) -> list[str]:
    """Returns the files that a path stands for, sorted; for a folder those in all folders below it.

    Raises:
        DataError: there is none.
    """
    return files.locate(path, in_folder=_in_folder, kinds="flows (.nc, .hdf5, .h5, .am or .vti)")


def _in_folder(folder: Path) -> list[str]:
    inside = [entry for entry in sorted(folder.rglob("*")) if entry.suffix.lower() in NETCDF + HDF5 + AMIRA + VTK]
    # what is being made waits under hidden names
    return [str(e) for e in inside if not any(part.startswith(".") for part in e.relative_to(folder).parts)]


def _opener(file: str) -> Opener:
    suffix = Path(file).suffix.lower()
    if suffix in AMIRA:
        return open_amira
    if suffix in VTK:
        return lambda file, boundary: open_vti([file], boundary)
    if suffix in HDF5:
        return open_well if is_well(opened_hdf5(file)) else open_pdebench
    if suffix not in NETCDF:
        known = ", ".join(NETCDF + HDF5 + AMIRA + VTK)
        raise DataError(f"{file}: unknown kind of file; known endings are {known}")
    dataset = opened_netcdf(file)
    known_kinds = (
        (is_ensemble, open_ensemble), (is_miniweather, open_miniweather), (is_cgl, open_cgl), (is_plane, open_planes),
    )  # fmt: skip
    for belongs, opener in known_kinds:
        if belongs(dataset):
            return opener
    found = ", ".join(dataset.variables) or "none at all"
    raise DataError(
        f"{file}: no flow is in it; {', '.join(VARIABLES)} or fields on (time, y, x) are needed, found {found}"
    )


def _check_alike(first: FlowSource, other: FlowSource) -> None:
    """Refuses flows of different grids: one model needs one grid."""
    spacings = np.array([[first.dx, first.dz], [other.dx, other.dz]])
    same_grid = first.shape == other.shape and np.allclose(spacings[0], spacings[1], rtol=GRID_TOLERANCE, atol=0)
    if not same_grid:
        a, b = (f"{s.shape[1]} x {s.shape[0]} cells of {s.dx:g} x {s.dz:g}" for s in (first, other))
        raise DataError(f"{first.name} and {other.name} are on different grids ({a}, and {b}); use them one by one")
    if set(first.variables) != set(other.variables):
        a, b = (", ".join(source.variables) for source in (first, other))
        raise DataError(f"{first.name} and {other.name} have different variables ({a}, and {b}); use them one by one")
    if first.boundary != other.boundary:
        raise DataError(
            f"{first.name} and {other.name} have different boundaries ({first.boundary.names}, and "
            f"{other.boundary.names}); use them one by one"
        )
