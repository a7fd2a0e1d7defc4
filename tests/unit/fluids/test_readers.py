"""Every format gives what was written, lazily; what is wrong is told in one sentence."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest

from domains.fluids.data.boundary import Boundary, Side
from domains.fluids.data.readers import FlowSource, open_sources
from domains.fluids.solver import VARIABLES, Background, SolverGrid
from sciml.core.errors import DataError

from . import flow_files as files

ORIGINAL = Path(__file__).parents[3].parent / "shared" / "data" / "miniweather"


def only(path: Path, **options) -> FlowSource:
    (source,) = open_sources(str(path), **options)
    return source


class TestMiniWeather:
    def test_what_was_written_comes_back(self, tmp_path):
        fields = files.miniweather(tmp_path / "a.nc")
        source = only(tmp_path / "a.nc")
        assert source.variables == VARIABLES
        assert source.times.tolist() == [0, 10, 20]
        assert (source.dx, source.dz, source.shape) == (files.GRID.dx, files.GRID.dz, (6, 12))
        assert source.boundary == Boundary.of("periodic", "wall")
        np.testing.assert_array_equal(source.read(), fields)
        np.testing.assert_array_equal(source.read(slice(1, 2), ("theta", "dens")), fields[1:2][:, [3, 0]])

    def test_the_schema_is_the_original_s(self, tmp_path):
        files.miniweather(tmp_path / "a.nc")
        with netCDF4.Dataset(tmp_path / "a.nc") as file:
            assert {name: dim.isunlimited() for name, dim in file.dimensions.items()} == {"t": True, "x": 0, "z": 0}
            assert set(file.variables) == {"t", *VARIABLES}
            assert all(file[name].dimensions == ("t", "z", "x") and file[name].dtype == "f8" for name in VARIABLES)

    @pytest.mark.skipif(not ORIGINAL.is_dir(), reason="the original's files are not here")
    def test_the_original_s_own_files(self):
        source = only(ORIGINAL / "thermal_100x50.nc")
        assert source.times[-1] == pytest.approx(1000)
        assert np.abs(source.read(slice(0, 1))[0, 3]).max() == pytest.approx(3, rel=0.02)
        frames = only(ORIGINAL / "collision_100x50_all_frames_f32.nc")
        assert frames.interval == pytest.approx(10)  # the first and the last are a step longer and shorter

    def test_profiles_of_the_background(self, tmp_path):
        background = Background.of(files.GRID, 0.02)
        files.miniweather(tmp_path / "a.nc", background=background)
        profiles = only(tmp_path / "a.nc").profiles
        np.testing.assert_array_equal(profiles["hy_dens"], background.dens)
        np.testing.assert_array_equal(profiles["hy_theta"], background.theta)

    def test_a_missing_variable(self, tmp_path):
        files.without(tmp_path / "a.nc", "theta")
        with pytest.raises(DataError, match=r"a\.nc: no variable theta"):
            open_sources(str(tmp_path / "a.nc"))

    def test_an_unknown_variable_is_not_read(self, tmp_path):
        files.miniweather(tmp_path / "a.nc")
        with pytest.raises(DataError, match="no variable tetha; did you mean 'theta'"):
            only(tmp_path / "a.nc").read(variables=["tetha"])

    @pytest.mark.parametrize("cut", [1, 300, 4000, 6900])
    def test_a_file_that_is_cut_off(self, tmp_path, cut):
        files.miniweather(tmp_path / "a.nc")
        whole = (tmp_path / "a.nc").read_bytes()
        (tmp_path / "a.nc").write_bytes(whole[:-cut])
        with pytest.raises(DataError, match="damaged"):
            open_sources(str(tmp_path / "a.nc"))

    def test_a_value_that_is_no_number(self, tmp_path):
        files.miniweather(tmp_path / "a.nc")
        with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:
            file["wwnd"][1, 2, 3] = np.nan
        source = only(tmp_path / "a.nc")
        assert np.isfinite(source.read(slice(0, 1))).all()
        with pytest.raises(DataError, match=r"a\.nc: wwnd is not a finite number at time 10, cell z=2 x=3"):
            source.read()

    def test_times_that_are_not_uniform(self, tmp_path):
        files.miniweather(tmp_path / "a.nc", times=(0.0, 10.0, 20.0, 40.0))
        with pytest.raises(DataError, match="times are not uniform, frames 2 and 3 are 20 apart and most are 10"):
            _ = only(tmp_path / "a.nc").interval

    def test_times_that_do_not_increase(self, tmp_path):
        files.miniweather(tmp_path / "a.nc", times=(0.0, 10.0, 10.0))
        with pytest.raises(DataError, match=r"times do not increase at frame 2 \(10\)"):
            open_sources(str(tmp_path / "a.nc"))

    def test_times_and_places_that_the_file_tells(self, tmp_path):
        files.miniweather(tmp_path / "a.nc", times=(0.0, 0.5, 1.0))
        with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:
            file["t"].units = "minutes"
            for name, size in (("x", 12), ("z", 6)):
                file.createVariable(name, "f8", (name,))[:] = 50.0 + 400.0 * np.arange(size)
        source = only(tmp_path / "a.nc")
        assert source.times.tolist() == [0, 30, 60]
        assert (source.dx, source.dz, source.x.first) == (400, 400, 50)

    def test_frames_on_whole_steps_of_a_solver_beside_the_clock(self, tmp_path):
        files.miniweather(tmp_path / "a.nc", times=(0.0, 20.31, 40.10, 59.89, 80.2))
        assert only(tmp_path / "a.nc").interval == pytest.approx(20.05)


class TestFolder:
    def test_all_its_files_but_hidden_ones(self, tmp_path):
        for name in ("b.nc", "a.nc", ".part/c.nc"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            files.miniweather(tmp_path / name)
        assert [Path(source.name).name for source in open_sources(str(tmp_path))] == ["a.nc", "b.nc"]

    def test_mixed_grids(self, tmp_path):
        files.miniweather(tmp_path / "a.nc")
        files.miniweather(tmp_path / "b.nc", SolverGrid(16, 8))
        with pytest.raises(DataError, match=r"a\.nc and .*b\.nc are on different grids \(12 x 6 .*16 x 8"):
            open_sources(str(tmp_path))

    def test_cells_of_another_size(self, tmp_path):
        files.cgl(tmp_path / "a.nc")
        files.amira(tmp_path / "b.am")
        with pytest.raises(DataError, match=r"20 x 8 cells of 0\.21.*20 x 8 cells of 0\.2 x"):
            open_sources(str(tmp_path))

    def test_mixed_variables(self, tmp_path):
        for name, num_variables in (("a.h5", 1), ("b.h5", 2)):
            files.pdebench_by_sample(tmp_path / name, num_variables)
        with pytest.raises(DataError, match=r"different variables \(v0, and v0, v1\)"):
            open_sources(str(tmp_path))

    def test_mixed_boundaries(self, tmp_path):
        files.well(tmp_path / "a.hdf5")
        files.well(tmp_path / "b.hdf5", (("x", "OPEN"), ("y", "WALL")))
        with pytest.raises(DataError, match="different boundaries"):
            open_sources(str(tmp_path))

    @pytest.mark.parametrize(
        ("path", "match"),
        [
            ("flow.txt", "unknown kind of file"),
            ("nothing.nc", "did you mean 'something.nc'"),
            ("*.am", "no file matches"),
        ],
    )
    def test_nothing_to_read(self, tmp_path, path, match):
        for name in ("flow.txt", "something.nc"):
            (tmp_path / name).touch()
        with pytest.raises(DataError, match=match):
            open_sources(str(tmp_path / path))

    def test_other_netcdf(self, tmp_path):
        with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
            file.createDimension("x", 3)
            file.createVariable("salt", "f4", ("x",))
        with pytest.raises(DataError, match=r"no flow is in it; dens, .* found salt"):
            open_sources(str(tmp_path / "a.nc"))


class TestCGL:
    @pytest.mark.parametrize("hole", ["masked", "at rest"])
    def test_obstacles_are_respected(self, tmp_path, hole):
        winds, mask = files.cgl(tmp_path / "a.nc", hole)
        source = only(tmp_path / "a.nc")
        np.testing.assert_array_equal(source.mask, mask)
        np.testing.assert_array_equal(source.read(), np.where(mask, 0, winds))
        assert source.dx == pytest.approx(4 / 19)
        assert source.interval == pytest.approx(0.5)
        assert source.odd == ((True, False), (False, True))
        assert source.boundary.x == (Side.OPEN, Side.OPEN)

    def test_a_value_that_is_missing_in_the_fluid(self, tmp_path):
        files.cgl(tmp_path / "a.nc")
        with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:
            file["v"][2, 0, 0] = np.ma.masked
        with pytest.raises(DataError, match="v is not a finite number at time 1, cell z=0 x=0"):
            only(tmp_path / "a.nc").read()

    def test_a_missing_variable(self, tmp_path):
        files.cgl(tmp_path / "a.nc")
        with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:
            file.renameVariable("v", "q")
        with pytest.raises(DataError, match="no variable v"):
            open_sources(str(tmp_path / "a.nc"))

    def test_a_pressure_is_a_variable(self, tmp_path):
        winds, mask = files.cgl(tmp_path / "a.nc")
        with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:
            file.createVariable("p", "f4", ("tdim", "ydim", "xdim"))[:] = winds[:, 0] * 2
        source = only(tmp_path / "a.nc")
        assert source.variables == ("u", "v", "p")
        np.testing.assert_array_equal(source.read()[:, 2], np.where(mask, 0, 2 * winds[:, 0]))

    def test_rows_that_go_down_are_turned_up(self, tmp_path):
        _, mask = files.cgl(tmp_path / "up.nc")
        files.cgl(tmp_path / "down.nc")
        with netCDF4.Dataset(tmp_path / "down.nc", "a") as file:
            file.set_auto_mask(False)
            for name in ("ydim", "u", "v"):
                values = file[name][:]
                file[name][:] = values[::-1] if name == "ydim" else values[:, ::-1]
        up, down = only(tmp_path / "up.nc"), only(tmp_path / "down.nc")
        np.testing.assert_array_equal(down.read(), up.read())
        np.testing.assert_array_equal(down.mask, mask)
        assert (down.dz, down.z.first, down.shape) == (up.dz, -1.0, (8, 20))

    @pytest.mark.parametrize(
        ("unit", "expected", "told"),
        [("milliseconds", 5e-4, "s"), ("minutes since 2000-01-01", 30.0, "s"), ("D/U", 0.5, "")],
    )
    def test_times_have_the_unit_of_the_file(self, tmp_path, unit, expected, told):
        files.cgl(tmp_path / "a.nc")
        with netCDF4.Dataset(tmp_path / "a.nc", "a") as file:
            file["tdim"].units = unit
        source = only(tmp_path / "a.nc")
        assert source.interval == pytest.approx(expected)
        assert source.units == ("", told)

    def test_a_boundary_may_be_given(self, tmp_path):
        files.cgl(tmp_path / "a.nc")
        boundary = Boundary.of("periodic", "wall")
        assert only(tmp_path / "a.nc", boundary=boundary).boundary == boundary

    def test_a_file_that_is_cut_off(self, tmp_path):
        files.cgl(tmp_path / "a.nc")
        whole = (tmp_path / "a.nc").read_bytes()
        (tmp_path / "a.nc").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="damaged"):
            open_sources(str(tmp_path / "a.nc"))


class TestAmira:
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_what_was_written_comes_back(self, tmp_path, order):
        winds = files.amira(tmp_path / "a.am", order=order)
        source = only(tmp_path / "a.am")
        np.testing.assert_array_equal(source.read(), winds)
        np.testing.assert_array_equal(source.read(slice(1, 4, 2), ["v"]), winds[1:4:2, 1:])
        assert (source.dx, source.dz) == pytest.approx((0.2, 1 / 7))
        assert source.times.tolist() == [0, 0.5, 1, 1.5, 2]
        assert source.mask is None

    @pytest.mark.parametrize("comment", ["", "# Data section\n", "\n\n"])
    def test_the_comment_before_the_data_may_be_missing(self, tmp_path, comment):
        winds = files.amira(tmp_path / "a.am")
        whole = (tmp_path / "a.am").read_bytes()
        (tmp_path / "a.am").write_bytes(whole.replace(b"# Data section follows\n", comment.encode(), 1))
        np.testing.assert_array_equal(only(tmp_path / "a.am").read(), winds)

    def test_what_rests_is_an_obstacle(self, tmp_path):
        winds = files.values(5, 2, 8, 20)
        winds[..., 2:4, 5] = 0
        files.amira(tmp_path / "a.am", winds=winds)
        assert np.argwhere(only(tmp_path / "a.am").mask).tolist() == [[2, 5], [3, 5]]

    def test_a_file_that_is_cut_off(self, tmp_path):
        files.amira(tmp_path / "a.am")
        whole = (tmp_path / "a.am").read_bytes()
        (tmp_path / "a.am").write_bytes(whole[:-1])
        with pytest.raises(DataError, match=f"cut off after {len(whole) - 1} of {len(whole)} bytes"):
            open_sources(str(tmp_path / "a.am"))

    @pytest.mark.parametrize(
        ("old", "new", "match"),
        [
            ("BINARY-LITTLE-ENDIAN", "ASCII", "is AmiraMesh ASCII"),
            ("{ float[2]", "{ float[3]", r"float\[3\]; float\[2\]"),
            ("define Lattice 20 8 5", "", "'define Lattice nx ny nt' is missing"),
            ("define Lattice 20 8 5", "define Lattice 4294967296 4294967296 2", "it was cut off after"),
            ("\n@1\n", "\n", "a line '@1' before the data is missing"),
            ("} @1", "} @1(HxZip,99)", "compressed"),
        ],
    )
    def test_another_kind_of_header(self, tmp_path, old, new, match):
        files.amira(tmp_path / "a.am")
        whole = (tmp_path / "a.am").read_bytes()
        (tmp_path / "a.am").write_bytes(whole.replace(old.encode(), new.encode(), 1))
        with pytest.raises(DataError, match=match):
            open_sources(str(tmp_path / "a.am"))

    def test_a_value_that_is_no_number(self, tmp_path):
        winds = files.values(5, 2, 8, 20)
        winds[3, 0, 7, 19] = np.inf
        files.amira(tmp_path / "a.am", winds=winds)
        with pytest.raises(DataError, match=r"u is not a finite number at time 1\.5, cell z=7 x=19"):
            only(tmp_path / "a.am").read()

    def test_files_larger_than_memory(self, tmp_path):
        """A file of 64 GB, nearly all of it a hole on disk."""
        frames, header = 10**6, b"Parameters { BoundingBox 0 1 0 1 0 999999 }\nLattice { float[2] Data } @1\n"
        start = b"# AmiraMesh BINARY-LITTLE-ENDIAN 2.1\ndefine Lattice 100 80 1000000\n" + header
        start += b"# Data section follows\n@1\n"
        with (tmp_path / "a.am").open("wb") as file:
            file.write(start + np.ones(100 * 80 * 2, dtype="<f4").tobytes())
            file.truncate(len(start) + frames * 64000)
        tracemalloc.start()
        source = only(tmp_path / "a.am")
        assert len(source) == frames
        assert source.read(slice(0, 1)).min() == 1
        assert not source.read(slice(frames - 2, frames)).any()
        assert tracemalloc.get_traced_memory()[1] < 32e6  # a million times are 8 of it
        tracemalloc.stop()


class TestVTI:
    @pytest.mark.parametrize("encoding", ["ascii", "inline", "inline zlib", "base64", "base64 zlib", "raw", "raw zlib"])
    def test_what_was_written_comes_back(self, tmp_path, encoding):
        winds = files.values(5, 2, 8, 20)
        winds[:, :, 2:4, 5] = 0
        files.vti(tmp_path / "a.vti", winds, encoding)
        source = only(tmp_path / "a.vti")
        np.testing.assert_array_equal(source.read(), winds)
        np.testing.assert_array_equal(source.read(slice(1, 4, 2), ["v"]), winds[1:4:2, 1:])
        assert (source.dx, source.dz, source.winds) == (0.25, 0.5, ("u", "v"))
        assert source.times.tolist() == [1, 1.5, 2, 2.5, 3]
        assert np.argwhere(source.mask).tolist() == [[2, 5], [3, 5]]
        assert pickle.loads(pickle.dumps(source)).read(slice(0, 1)).shape == (1, 2, 8, 20)

    def test_files_of_one_time_each_tell_it(self, tmp_path):
        winds = files.values(4, 2, 8, 20)
        for number in range(4):
            files.vti(tmp_path / f"flow_{number}.vti", winds[number : number + 1], "raw", time=3 + 0.1 * number)
        assert only(tmp_path).times.tolist() == pytest.approx([3, 3.1, 3.2, 3.3])

    @pytest.mark.parametrize("attribute", ["", ' Vectors="vel"'])
    def test_vorticity_is_no_wind(self, tmp_path, attribute):
        vorticity, winds = np.zeros((3, 4, 6, 3)), files.values(3, 4, 6, 3)
        vorticity[..., 2] = files.values(3, 4, 6, seed=1)
        files.vti_of_arrays(tmp_path / "a.vti", {"vorticity": vorticity, "vel": winds}, "PointData", attribute)
        source = only(tmp_path / "a.vti")
        np.testing.assert_array_equal(source.read(slice(None), source.winds), winds[..., :2].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(source.read(slice(None), ["vorticity_2"])[:, 0], vorticity[..., 2].astype("f4"))
        assert source.mask is None

    def test_a_flow_that_is_at_rest_is_no_obstacle(self, tmp_path):
        arrays = {"vel": np.zeros((3, 4, 6, 3)), "p": files.values(3, 4, 6)}
        files.vti_of_arrays(tmp_path / "a.vti", arrays, "PointData")
        assert only(tmp_path / "a.vti").mask is None

    @pytest.mark.parametrize(("kind", "first"), [("PointData", (6.0, 3.5)), ("CellData", (6.25, 3.625))])
    def test_coordinates_of_a_part_of_an_image(self, tmp_path, kind, first):
        files.vti_of_arrays(tmp_path / "a.vti", {"vel": files.values(3, 4, 6, 3)}, kind, low=(10, 8, 0))
        source = only(tmp_path / "a.vti")
        assert (source.z.first, source.x.first) == first  # the origin is 2 along y and 1 along x
        assert source.shape == (4, 6)

    def test_a_plane_along_x_and_z_is_refused(self, tmp_path):
        files.vti(tmp_path / "a.vti", files.values(24, 2, 1, 48), "raw")
        with pytest.raises(DataError, match="one point along y; swap y and z"):
            open_sources(str(tmp_path / "a.vti"))

    def test_a_file_for_each_time_in_their_natural_order(self, tmp_path):
        winds = files.values(11, 2, 8, 20)
        for number in range(11):
            files.vti(tmp_path / f"flow_{number}.vti", winds[number : number + 1], "raw")
        source = only(tmp_path)
        np.testing.assert_array_equal(source.read(), winds)
        with pytest.raises(DataError, match="holds one time; name the folder"):
            open_sources(str(tmp_path / "flow_3.vti"))
        files.vti(tmp_path / "flow_4.vti", files.values(1, 2, 8, 19), "raw")
        with pytest.raises(DataError, match="other points or arrays"):
            open_sources(str(tmp_path))

    @pytest.mark.parametrize(
        ("old", "new", "match"),
        [
            ("ImageData", "PolyData", "VTK's ImageData is needed"),
            ("Float32", "String", "of type String"),
            ("vtkZLibDataCompressor", "vtkLZ4DataCompressor", "compressed by vtkLZ4"),
            ("<VTKFile", "<!DOCTYPE a [<!ENTITY b 'c'>]><VTKFile", "declares entities"),
            ("0 19 0 7 0 4", "0 19 0 7 0 5", "has 800 values"),
            ("0.25 0.5 0.5", "0.25 0 0.5", "spacings above 0"),
        ],
    )
    def test_another_kind_of_file(self, tmp_path, old, new, match):
        files.vti(tmp_path / "a.vti", files.values(5, 2, 8, 20), "raw zlib")
        whole = (tmp_path / "a.vti").read_bytes()
        (tmp_path / "a.vti").write_bytes(whole.replace(old.encode(), new.encode()))
        with pytest.raises(DataError, match=match):
            only(tmp_path / "a.vti").read()

    @pytest.mark.parametrize("encoding", ["ascii", "inline", "raw", "base64 zlib"])
    def test_a_file_that_is_cut_off(self, tmp_path, encoding):
        files.vti(tmp_path / "a.vti", files.values(5, 2, 8, 20), encoding)
        whole = (tmp_path / "a.vti").read_bytes()
        (tmp_path / "a.vti").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="damaged"):
            only(tmp_path / "a.vti").read()


class TestWell:
    def test_what_was_written_comes_back(self, tmp_path):
        fields = files.well(tmp_path / "a.hdf5")
        first, second = open_sources(str(tmp_path / "a.hdf5"))
        assert second.name.endswith("a.hdf5@1")
        assert first.variables[:3] == ("density", "velocity_x", "velocity_y")
        assert first.variables[3:] == ("stress_xx", "stress_xy", "stress_yx", "stress_yy")
        assert first.winds == ("velocity_x", "velocity_y")
        assert first.shape == (6, 10)
        assert (first.dx, first.dz) == pytest.approx((0.1, 0.2))
        read = second.read(slice(1, 3), ["velocity_y", "density", "stress_yx"])
        np.testing.assert_array_equal(read[:, 0], fields["velocity"][1, 1:3, ..., 1].swapaxes(1, 2))
        np.testing.assert_array_equal(read[:, 1], fields["density"][1, 1:3].swapaxes(1, 2))
        np.testing.assert_array_equal(read[:, 2], fields["stress"][1, 1:3, ..., 1, 0].swapaxes(1, 2))

    def test_a_group_without_fields_may_name_nothing(self, tmp_path):
        files.well(tmp_path / "a.hdf5")
        with h5py.File(tmp_path / "a.hdf5", "a") as file:
            file["t2_fields"].attrs["field_names"] = h5py.Empty("S1")
        assert open_sources(str(tmp_path / "a.hdf5"))[0].variables == ("density", "velocity_x", "velocity_y")

    def test_a_vector_without_components(self, tmp_path):
        files.well(tmp_path / "a.hdf5")
        with h5py.File(tmp_path / "a.hdf5", "a") as file:
            told = dict(file["t1_fields/velocity"].attrs)
            del file["t1_fields/velocity"]
            file["t1_fields"].create_dataset("velocity", data=files.values(2, 3, 10, 6)).attrs.update(told)
        with pytest.raises(DataError, match=r"velocity has the shape \(2, 3, 10, 6\), \(2, 3, 10, 6, 2\) is needed"):
            open_sources(str(tmp_path / "a.hdf5"))

    def test_typed_boundaries_and_obstacles(self, tmp_path):
        files.well(tmp_path / "a.hdf5", (("x", "open"), ("y", "WALL")), obstacle=True)
        source = open_sources(str(tmp_path / "a.hdf5"))[0]
        assert source.boundary == Boundary.of("open", "wall")
        assert np.argwhere(source.mask).tolist() == [[3, 2], [3, 3]]
        assert not source.read()[..., 3, 2:4].any()

    def test_axes_that_go_down_are_turned_with_their_sides(self, tmp_path):
        boundaries = (("x", "PERIODIC"), ("y", "WALL"))
        fields = files.well(tmp_path / "a.hdf5", boundaries, obstacle=True)
        with h5py.File(tmp_path / "a.hdf5", "a") as file:
            file["dimensions/y"][:] = file["dimensions/y"][:][::-1]
            bottom, top = np.zeros((2, 6), dtype=bool)
            bottom[0] = top[-1] = True
            file["boundary_conditions/y_WALL/mask"][:] = bottom
            file.copy("boundary_conditions/y_WALL", "boundary_conditions/y_OPEN")
            file["boundary_conditions/y_OPEN"].attrs["bc_type"] = "OPEN"
            file["boundary_conditions/y_OPEN/mask"][:] = top
        first, _ = open_sources(str(tmp_path / "a.hdf5"))
        assert first.boundary == Boundary.of("periodic", ["open", "wall"])
        turned = fields["density"][0, ..., ::-1].swapaxes(-1, -2)
        np.testing.assert_array_equal(first.read(variables=["density"])[:, 0], np.where(first.mask, 0, turned))
        assert np.argwhere(first.mask).tolist() == [[2, 2], [2, 3]]

    def test_an_unknown_boundary(self, tmp_path):
        files.well(tmp_path / "a.hdf5", (("x", "WAL"), ("y", "WALL")))
        with pytest.raises(DataError, match=r"unknown boundary 'wal' of x_WAL; did you mean 'wall'"):
            open_sources(str(tmp_path / "a.hdf5"))

    def test_a_boundary_that_is_not_told(self, tmp_path):
        files.well(tmp_path / "a.hdf5", (("x", "PERIODIC"),))
        with pytest.raises(DataError, match="no boundary condition at an end of y"):
            open_sources(str(tmp_path / "a.hdf5"))
        assert open_sources(str(tmp_path / "a.hdf5"), Boundary.of("periodic", "open"))

    def test_what_does_not_change_is_an_input(self, tmp_path):
        files.well(tmp_path / "a.hdf5")
        with h5py.File(tmp_path / "a.hdf5", "a") as file:
            height = np.asarray(file["t0_fields/height"])
            group = file.create_group("scalars")
            group.attrs["field_names"] = ["Re", "gamma"]
            for name, value, by_sample in (("Re", [100.0, 200.0], True), ("gamma", 1.4, False)):
                group.create_dataset(name, data=value).attrs.update(sample_varying=by_sample, time_varying=False)
        first, second = open_sources(str(tmp_path / "a.hdf5"))
        assert list(first.constants) == ["Re", "gamma", "height"]
        np.testing.assert_array_equal(first.constants["height"], height.T)
        assert [source.constants["Re"].ravel()[0] for source in (first, second)] == [100, 200]
        assert first.constants["gamma"].shape == first.shape
        assert first.units == ("", "")

    def test_a_field_along_one_axis_is_the_same_along_the_other(self, tmp_path):
        files.well(tmp_path / "a.hdf5")
        with h5py.File(tmp_path / "a.hdf5", "a") as file:
            file["t0_fields"].attrs["field_names"] = ["density", "height", "profile"]
            profile = file["t0_fields"].create_dataset("profile", data=np.arange(6.0))
            profile.attrs.update(dim_varying=[False, True], sample_varying=False, time_varying=False)
        constant = open_sources(str(tmp_path / "a.hdf5"))[0].constants["profile"]
        np.testing.assert_array_equal(constant, np.broadcast_to(np.arange(6.0)[:, None], (6, 10)))

    @pytest.mark.parametrize("swapped", [False, True])
    def test_walls_that_are_one_mask_of_the_plane(self, tmp_path, swapped):
        files.well(tmp_path / "a.hdf5", ())
        mask = np.zeros((10, 6), dtype=bool)
        mask[[0, -1]] = mask[:, [0, -1]] = True
        mask[4:6, 2:4] = True
        dims = ["y", "x"] if swapped else ["x", "y"]
        with h5py.File(tmp_path / "a.hdf5", "a") as file:
            files._condition(file["boundary_conditions"], "all", dims, "WALL", mask.T if swapped else mask)
        source = open_sources(str(tmp_path / "a.hdf5"))[0]
        assert source.boundary == Boundary.of("wall", "wall")
        assert np.argwhere(source.mask).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
        periodic = open_sources(str(tmp_path / "a.hdf5"), Boundary.of("periodic", "wall"))[0]
        np.testing.assert_array_equal(periodic.mask, source.mask)  # what is known better of the sides drops no obstacle

    def test_obstacles_may_differ_between_trajectories(self, tmp_path):
        files.well(tmp_path / "a.hdf5")
        mask = np.zeros((2, 10, 6), dtype=bool)
        mask[1, 3, 2] = True
        with h5py.File(tmp_path / "a.hdf5", "a") as file:
            files._condition(file["boundary_conditions"], "maze", ["x", "y"], "WALL", mask)
        first, second = open_sources(str(tmp_path / "a.hdf5"))
        assert first.mask is None
        assert np.argwhere(second.mask).tolist() == [[2, 3]]

    @pytest.mark.parametrize(
        ("grid", "axes"), [("spherical", ["x", "y"]), ("polar", ["x", "y"]), ("cartesian", ["theta", "phi"])]
    )
    def test_curved_grids_are_refused(self, tmp_path, grid, axes):
        files.well(tmp_path / "a.hdf5")
        with h5py.File(tmp_path / "a.hdf5", "a") as file:
            file.attrs["grid_type"] = grid
            file["dimensions"].attrs["spatial_dims"] = axes
        with pytest.raises(DataError, match="a plane with straight axes"):
            open_sources(str(tmp_path / "a.hdf5"))

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda f: f["t0_fields/density"].attrs.__delitem__("dim_varying"), "has no attribute dim_varying"),
            (lambda f: f["t0_fields/density"].attrs.__delitem__("time_varying"), "has no attribute time_varying"),
            (lambda f: f["t0_fields/density"].attrs.__setitem__("dim_varying", [True]), "has 1 values"),
            (lambda f: f.__delitem__("boundary_conditions"), "tells no boundary_conditions"),
            (lambda f: f.attrs.__delitem__("n_trajectories"), "has no attribute n_trajectories"),
            (lambda f: f.attrs.__setitem__("n_trajectories", 3), "density has the shape"),
            (lambda f: f.attrs.__setitem__("n_trajectories", "many"), "not laid out as The Well"),
            (lambda f: f["dimensions"].__delitem__("time"), "dimensions has no time"),
            (lambda f: f["dimensions"].attrs.__delitem__("spatial_dims"), "has no attribute spatial_dims"),
            (lambda f: f["t0_fields"].__delitem__("density"), "names density, which is not there"),
            (lambda f: f["t1_fields/velocity"].resize((2, 3, 10, 6, 1)), "velocity has the shape"),
            (lambda f: f["boundary_conditions/x_PERIODIC"].__delitem__("mask"), "x_PERIODIC has no mask"),
            (lambda f: f["boundary_conditions/x_PERIODIC"].attrs.__delitem__("bc_type"), "has no attribute bc_type"),
            (lambda f: f["t0_fields/density"].attrs.__setitem__("time_varying", False), "density has the shape"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_together(self, tmp_path, change, match):
        files.well(tmp_path / "a.hdf5")
        with h5py.File(tmp_path / "a.hdf5", "a") as file:
            velocity = np.asarray(file["t1_fields/velocity"])
            attributes = dict(file["t1_fields/velocity"].attrs)
            del file["t1_fields/velocity"]
            file["t1_fields"].create_dataset("velocity", data=velocity, chunks=True, maxshape=(None,) * 5).attrs.update(
                attributes
            )
            change(file)
        with pytest.raises(DataError, match=match):
            open_sources(str(tmp_path / "a.hdf5"))

    def test_a_file_that_is_cut_off(self, tmp_path):
        files.well(tmp_path / "a.hdf5")
        whole = (tmp_path / "a.hdf5").read_bytes()
        (tmp_path / "a.hdf5").write_bytes(whole[:-1000])
        with pytest.raises(DataError, match="damaged"):
            open_sources(str(tmp_path / "a.hdf5"))


class TestPDEBench:
    def test_by_variable(self, tmp_path):
        fields = files.pdebench_by_variable(tmp_path / "a.h5")
        source = open_sources(str(tmp_path / "a.h5"))[1]
        assert source.times.tolist() == [0, 0.25, 0.5]
        assert source.winds == ("Vx", "Vy")
        read = source.read(slice(1, 2), ["pressure", "Vx"])
        np.testing.assert_array_equal(read[0, 0], fields["pressure"][1, 1].T)
        np.testing.assert_array_equal(read[0, 1], fields["Vx"][1, 1].T)

    def test_by_sample(self, tmp_path):
        data = files.pdebench_by_sample(tmp_path / "a.h5")
        source = open_sources(str(tmp_path / "a.h5"))[1]
        assert source.variables == ("v0", "v1")
        np.testing.assert_array_equal(source.read(), data[1].transpose(0, 3, 2, 1))

    def test_a_missing_variable(self, tmp_path):
        files.pdebench_by_variable(tmp_path / "a.h5")
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file["Vy"]
        with pytest.raises(DataError, match="no variable Vy"):
            open_sources(str(tmp_path / "a.h5"))

    def test_incompressible(self, tmp_path):
        velocity, particles, force = files.values(2, 3, 8, 6, 2), files.values(2, 3, 8, 6, 1), files.values(2, 8, 6, 2)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, data in (("velocity", velocity), ("particles", particles), ("force", force)):
                file[name] = data
            file["t"] = np.arange(6.0).reshape(2, 3) * 0.005
        source = open_sources(str(tmp_path / "a.h5"))[1]
        assert source.variables == ("particles", "Vx", "Vy")
        assert source.boundary == Boundary.of("wall", "wall")
        assert (source.shape, source.dx, source.dz) == ((6, 8), 1 / 8, 1 / 6)
        np.testing.assert_array_equal(source.read(variables=["Vy"])[:, 0], velocity[1, ..., 1].swapaxes(1, 2))
        np.testing.assert_array_equal(source.constants["force_x"], force[1, ..., 0].T)

    @pytest.mark.parametrize(
        ("name", "shape", "match"),
        [("velocity", (2, 3, 8, 6), "velocity has the shape"), ("force", (2, 8, 5, 2), "force has the shape"),
         ("t", (3, 3), "t has the shape"), ("particles", (2, 2, 8, 6, 1), "particles has the shape")],
    )  # fmt: skip
    def test_incompressible_that_does_not_fit(self, tmp_path, name, shape, match):
        shapes = {"velocity": (2, 3, 8, 6, 2), "particles": (2, 3, 8, 6, 1), "force": (2, 8, 6, 2), "t": (2, 3)}
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for key, size in {**shapes, name: shape}.items():
                file[key] = np.zeros(size)
        with pytest.raises(DataError, match=match):
            open_sources(str(tmp_path / "a.h5"))

    def test_other_hdf5(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["salt"] = [1.0]
        with pytest.raises(DataError, match="neither The Well's nor PDEBench's layout of a flow; found salt"):
            open_sources(str(tmp_path / "a.h5"))


def test_sources_go_to_worker_processes(tmp_path):
    """Open files would not."""
    fields = files.miniweather(tmp_path / "a.nc")
    source = only(tmp_path / "a.nc")
    source.read()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(), fields)
