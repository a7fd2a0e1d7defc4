"""Flows in a plane as most programs write them: fields on time and two axes of space, in NetCDF."""

from __future__ import annotations

import netCDF4
import numpy as np
import pytest

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers import FlowSource, open_sources
from sciml.core.errors import DataError

from . import flow_files as files

WALLS = Boundary.of("periodic", "wall")


def only(path, **options) -> FlowSource:
    (source,) = open_sources(str(path), **options)
    return source


def write(path, dims, sizes, names, units=(), shapes=None):
    """Returns the values of each name; coordinates begin at half a step of 0.5."""
    fields = {}
    with netCDF4.Dataset(path, "w") as file:
        for dim, size in zip(dims, sizes, strict=True):
            file.createDimension(dim, size)
            file.createVariable(dim, "f8", (dim,))[:] = 0.5 * np.arange(size) + 0.25
            if dim in dict(units):
                file[dim].units = dict(units)[dim]
        for seed, name in enumerate(names):
            on = (shapes or {}).get(name, dims)
            fields[name] = files.values(*(len(file.dimensions[dim]) for dim in on), seed=seed)
            file.createVariable(name, "f4", on)[:] = fields[name]
    return fields


def test_fields_on_time_y_and_x(tmp_path):
    shapes = {"depth": ("y", "x")}
    units = {"x": "km", "y": "km", "time": "hours since 2000-01-01"}.items()
    fields = write(tmp_path / "a.nc", ("time", "y", "x"), (3, 4, 6), ("p", "u", "v", "depth"), units, shapes)
    source = only(tmp_path / "a.nc", boundary=WALLS)
    np.testing.assert_array_equal(source.read(), np.stack([fields[name] for name in ("p", "u", "v")], 1))
    np.testing.assert_array_equal(source.constants["depth"], fields["depth"])
    assert (source.winds, source.units, source.interval) == (("u", "v"), ("m", "s"), 1800.0)
    assert (source.dx, source.x.first) == (500.0, 250.0)


def test_x_may_come_first_and_an_axis_have_one_point(tmp_path):
    fields = write(tmp_path / "a.nc", ("t", "x", "y", "z"), (3, 6, 1, 4), ("u", "v", "w"))
    source = only(tmp_path / "a.nc", boundary=WALLS)
    assert (source.shape, source.winds) == ((4, 6), ("u", "w"))  # v goes through the plane
    np.testing.assert_array_equal(source.read(slice(1, 2), ["w"])[0, 0], fields["w"][1, :, 0].T)


def test_missing_values_are_obstacles_and_zeros_of_a_scalar_are_none(tmp_path):
    write(tmp_path / "a.nc", ("time", "y", "x"), (3, 4, 6), ("tracer",))
    with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:
        file["tracer"][:, 0, 0] = 0
        file["tracer"][:, 2, 3] = np.ma.masked
    source = only(tmp_path / "a.nc", boundary=WALLS)
    assert np.argwhere(source.mask).tolist() == [[2, 3]]


def test_what_cannot_be_read_is_told(tmp_path):
    dims = ("time", "y", "x")
    path = tmp_path / "0.nc"
    write(path, dims, (3, 4, 6), ("u", "v"))
    with pytest.raises(DataError, match=r"what is at the sides; give it, e\.g\. data\.boundary="):
        only(path)
    path = tmp_path / "1.nc"
    write(path, (*dims, "xf"), (3, 4, 6, 6), ("v", "u"), shapes={"v": dims, "u": ("time", "y", "xf")})
    with pytest.raises(DataError, match=r"v is on \(time, y, x\) and u on \(time, y, xf\), a staggered grid"):
        only(path, boundary=WALLS)
    path = tmp_path / "2.nc"
    write(path, dims, (3, 4, 6), ("u", "v"), {"x": "degrees_east"}.items())
    with pytest.raises(DataError, match="x is in degrees"):
        only(path, boundary=WALLS)
    path = tmp_path / "3.nc"
    write(path, ("time", "z", "y", "x"), (3, 4, 5, 6), ("u",))
    with pytest.raises(DataError, match="3 dimensions of space"):
        only(path, boundary=WALLS)
