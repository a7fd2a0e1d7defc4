"""Small files of flows, written to each format's letter."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import netCDF4
import numpy as np

from domains.fluids.data.writers.miniweather import write_miniweather
from domains.fluids.solver import VARIABLES, SolverGrid

GRID = SolverGrid(12, 6)


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def miniweather(path: Path, grid: SolverGrid = GRID, times=(0.0, 10.0, 20.0), background=None) -> np.ndarray:
    """Returns the fields (time, 4, z, x)."""
    fields = values(len(times), 4, grid.nz, grid.nx)
    fields[:, 0] -= fields[:, 0].mean((1, 2), keepdims=True)  # between these sides mass is kept
    write_miniweather(path, grid, zip(times, fields, strict=True), background)
    return fields


def without(path: Path, name: str) -> None:
    """Writes a miniWeather file that lacks a variable."""
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        for dim, size in (("t", None), ("x", 12), ("z", 6)):
            file.createDimension(dim, size)
        file.createVariable("t", "f8", ("t",))[:] = [0.0, 1.0]
        for variable in VARIABLES:
            if variable != name:
                file.createVariable(variable, "f8", ("t", "z", "x"))[:] = np.zeros((2, 6, 12))


def cgl(path: Path, hole: str = "masked", frames: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A channel around a block of 2 x 3 cells, which are masked, at rest, or not there (``none``).

    Returns the winds (time, 2, y, x) and where the block is.
    """
    winds = values(frames, 2, 8, 20) + 3
    mask = np.zeros((8, 20), dtype=bool)
    mask[3:5, 4:7] = True
    with netCDF4.Dataset(path, "w") as file:
        for name, coordinate in (
            ("tdim", np.arange(frames) * 0.5),
            ("ydim", np.linspace(-1, 1, 8)),
            ("xdim", np.linspace(0, 4, 20)),
        ):
            file.createDimension(name, len(coordinate))
            file.createVariable(name, "f4", (name,))[:] = coordinate
        for number, name in enumerate("uv"):
            variable = file.createVariable(name, "f4", ("tdim", "ydim", "xdim"))
            if hole == "masked":
                variable[:] = np.ma.masked_array(winds[:, number], np.broadcast_to(mask, (frames, 8, 20)))
            else:
                variable[:] = winds[:, number] if hole == "none" else np.where(mask, 0, winds[:, number])
    return winds, mask


def amira(path: Path, header: str = "", order: str = "<", winds: np.ndarray | None = None) -> np.ndarray:
    """A flow of 5 frames of 8 x 20 cells. Returns the winds (time, 2, y, x)."""
    winds = values(5, 2, 8, 20) if winds is None else winds
    nt, _, ny, nx = winds.shape
    kind = "BINARY-LITTLE-ENDIAN" if order == "<" else "BINARY"
    text = header or (
        f"# AmiraMesh {kind} 2.1\n\n\ndefine Lattice {nx} {ny} {nt}\n\nParameters {{\n"
        f'    Content "{nx}x{ny}x{nt} float[2], uniform coordinates",\n'
        f'    BoundingBox 0 3.8 -0.5 0.5 0 2,\n    CoordType "uniform"\n}}\n\n'
        "Lattice { float[2] Data } @1\n\n# Data section follows\n@1\n"
    )
    path.write_bytes(text.encode() + winds.transpose(0, 2, 3, 1).astype(f"{order}f4").tobytes())
    return winds


def well(path: Path, boundaries=(("x", "PERIODIC"), ("y", "WALL")), obstacle: bool = False) -> dict[str, np.ndarray]:
    """Two trajectories of 3 times on 10 x 6 points. Returns the fields (trajectory, time, x, y, ...)."""
    import h5py

    fields = {"density": values(2, 3, 10, 6), "velocity": values(2, 3, 10, 6, 2), "stress": values(2, 3, 10, 6, 2, 2)}
    with h5py.File(path, "w") as file:
        file.attrs.update(dataset_name="some", grid_type="cartesian", n_spatial_dims=2, n_trajectories=2)
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        for name, coordinate in (("time", np.arange(3.0)), ("x", np.arange(10) * 0.1), ("y", np.arange(6) * 0.2)):
            dimensions.create_dataset(name, data=coordinate).attrs["sample_varying"] = False
        conditions = file.create_group("boundary_conditions")
        for axis, kind in boundaries:
            mask = np.zeros(10 if axis == "x" else 6, dtype=bool)
            mask[[0, -1]] = True
            _condition(conditions, f"{axis}_{kind}", [axis], kind, mask)
        if obstacle:
            inside = np.zeros((10, 6), dtype=bool)
            inside[2:4, 3] = True
            _condition(conditions, "block", ["x", "y"], "WALL", inside)
        for order, name in enumerate(fields):
            group = file.create_group(f"t{order}_fields")
            group.attrs["field_names"] = [name]
            data = group.create_dataset(name, data=fields[name], compression="gzip")
            data.attrs.update(dim_varying=[True, True], sample_varying=True, time_varying=True)
        file["t0_fields"].attrs["field_names"] = ["density", "height"]
        constant = file["t0_fields"].create_dataset("height", data=values(10, 6))
        constant.attrs.update(dim_varying=[True, True], sample_varying=False, time_varying=False)
    return fields


def _condition(group, name: str, dims: list[str], kind: str, mask: np.ndarray) -> None:
    import h5py

    condition = group.create_group(name)
    condition.attrs.update(bc_type=kind, associated_dims=dims, sample_varying=False, time_varying=False)
    condition.create_dataset("mask", data=mask)
    condition.create_dataset("values", data=h5py.Empty("f4"))


def pdebench_by_variable(path: Path) -> dict[str, np.ndarray]:
    """Two samples, 3 times (and the four edges of them), 8 x 6 points."""
    import h5py

    fields = {name: values(2, 3, 8, 6, seed=n) for n, name in enumerate(("density", "Vx", "Vy", "pressure"))}
    with h5py.File(path, "w") as file:
        for name, data in fields.items():
            file[name] = data
        for name, size in (("t", 4), ("x", 8), ("y", 6)):
            file[f"{name}-coordinate"] = np.arange(size) * 0.25
    return fields


def pdebench_by_sample(path: Path, num_variables: int = 2) -> np.ndarray:
    """Two samples on (t, x, y, variable)."""
    import h5py

    data = values(2, 3, 8, 6, num_variables)
    with h5py.File(path, "w") as file:
        for number, sample in enumerate(data):
            group = file.create_group(f"{number:04d}")
            group["data"] = sample
            for name, size in (("t", 3), ("x", 8), ("y", 6)):
                group[f"grid/{name}"] = np.arange(size) * 0.5
    return data


def vti(path: Path, winds: np.ndarray, encoding: str = "ascii", third: float = 0.5, time: float | None = None) -> None:
    """Writes winds (time, 2, y, x) as vectors of three components on image data whose third axis is time."""
    nt, _, ny, nx = winds.shape
    values = np.concatenate([winds.transpose(0, 2, 3, 1), np.zeros((nt, ny, nx, 1))], axis=-1).astype("<f4")
    raw = values.tobytes()
    if "zlib" in encoding:
        half = len(raw) // 2
        blocks = [zlib.compress(raw[:half]), zlib.compress(raw[half:])]
        header = np.array([2, half, len(raw) - half, *map(len, blocks)], "<u8").tobytes()
        parts = [header, b"".join(blocks)]
    else:
        parts = [np.array([len(raw)], "<u8").tobytes() + raw]
    packed = b"".join(parts if "raw" in encoding else map(base64.b64encode, parts))
    compressor = ' compressor="vtkZLibDataCompressor"' if "zlib" in encoding else ""
    inside, appended, kind = "", b"", 'format="appended" offset="0"'
    if encoding == "ascii":
        inside, kind = " ".join(map(repr, values.ravel().tolist())), 'format="ascii"'
    elif "inline" in encoding:
        inside, kind = packed.decode(), 'format="binary"'
    else:
        how = b"raw" if "raw" in encoding else b"base64"
        appended = b'<AppendedData encoding="%s">\n_' % how + packed + b"</AppendedData>"
    told = "" if time is None else (
        '<FieldData><DataArray type="Float64" Name="TimeValue" NumberOfTuples="1" format="ascii">'
        f"{time}</DataArray></FieldData>\n"
    )  # fmt: skip
    head = (
        f'<?xml version="1.0"?>\n<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" header_type="UInt64"'
        f'{compressor}>\n<ImageData WholeExtent="0 {nx - 1} 0 {ny - 1} 0 {nt - 1}" Origin="0 0 1" '
        f'Spacing="0.25 0.5 {third}">\n{told}<Piece Extent="0 {nx - 1} 0 {ny - 1} 0 {nt - 1}"><PointData Vectors="v">'
        f'<DataArray type="Float32" Name="v" NumberOfComponents="3" {kind}>{inside}</DataArray></PointData></Piece>'
        "</ImageData>\n"
    )
    path.write_bytes(head.encode() + appended + b"</VTKFile>")


def vti_of_arrays(
    path: Path, arrays: dict[str, np.ndarray], kind: str, attribute: str = "", low: tuple[int, int, int] = (0, 0, 0)
) -> None:
    """Writes arrays (time, y, x, ...) of points or cells whose numbers begin anywhere, in text."""
    sizes = next(iter(arrays.values())).shape[2::-1]
    more = kind == "CellData"
    extent = " ".join(f"{first} {first + size - 1 + more}" for first, size in zip(low, sizes, strict=True))
    inside = "".join(
        f'<DataArray type="Float64" Name="{name}" NumberOfComponents="{array.shape[3] if array.ndim == 4 else 1}" '
        f'format="ascii">{" ".join(map(repr, array.astype(float).ravel().tolist()))}</DataArray>'
        for name, array in arrays.items()
    )
    path.write_text(
        f'<VTKFile type="ImageData" byte_order="LittleEndian"><ImageData WholeExtent="{extent}" Origin="1 2 0" '
        f'Spacing="0.25 0.5 0.1"><Piece Extent="{extent}"><{kind}{attribute}>{inside}</{kind}></Piece></ImageData>'
        "</VTKFile>"
    )
