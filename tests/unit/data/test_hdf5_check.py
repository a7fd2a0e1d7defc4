"""HDF5 files that reach beyond themselves, or claim sizes that cannot be, are refused before anything is read."""

import h5py
import netCDF4
import numpy as np
import pytest

from domains.climate.data.readers.files import open_file
from domains.fluids.data.readers import hdf5, netcdf
from sciml.core.errors import DataError
from sciml.data.hdf5_check import check_hdf5


def external_link(file, folder):
    file["inner/link"] = h5py.ExternalLink(str(folder / "secret.h5"), "/secret")


def external_values(file, folder):
    file.create_dataset("outside", shape=(4,), dtype="u1", external=[(str(folder / "secret.txt"), 0, 4)])


def virtual(file, folder):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "secret", (3,))
    file.create_virtual_dataset("virtual", layout)


def too_large(file, folder):
    file.create_dataset("large", shape=(10**6, 10**6), dtype="f8", chunks=(100, 100))


READERS = {"netcdf": netcdf.opened, "hdf5": hdf5.opened, "weather": open_file}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (external_link, "/inner/link is a link to another file"),
        (external_values, "/outside has its values in another file"),
        (virtual, "/virtual has its values in another file"),
        (too_large, "/large cannot be 8000000000000 bytes large"),
    ],
)
def test_a_file_that_reaches_beyond_itself_is_refused(change, says, reader, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    path = str(tmp_path / "a.nc")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"] = np.arange(3.0)
    with h5py.File(path, "w") as file:
        change(file, tmp_path)
    with pytest.raises(DataError) as refused:
        READERS[reader](path)
    assert says in str(refused.value)


def test_links_within_a_file_and_groups_that_hold_themselves_are_fine(tmp_path):
    path = str(tmp_path / "a.nc")
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", None)
        file.createVariable("u", "f8", ("x",), zlib=True)[:] = np.zeros(10**6)
    with h5py.File(path, "a") as file:
        file["soft"] = h5py.SoftLink("/u")
        file["group/itself"] = file.require_group("group")
    check_hdf5(path)


def test_another_format_is_passed_over(tmp_path):
    (tmp_path / "a.nc").write_bytes(b"CDF\x01")
    check_hdf5(str(tmp_path / "a.nc"))
