"""Rows read from a store's files are those that zarr reads, and a missing lead time is told in little memory."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from domains.climate.data import zarr_layout as layout
from domains.climate.data.chunk_reader import ChunkReader
from domains.climate.data.samples import _nearest_span

DIMS = ("time", "channel", "latitude", "longitude")


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("chunks", [(2, 3, 4, 6), (1, 2, 4, 6), (1, 3, 4, 6)])
def test_rows_are_those_that_zarr_reads(tmp_path, chunks, compress):
    group = layout.open_group(tmp_path / "store.zarr", "w")
    array = layout.create_array(group, "fields", (7, 3, 4, 6), chunks, DIMS, compress=compress)
    array[:6] = np.random.default_rng(0).normal(size=(6, 3, 4, 6)).astype(np.float32)
    reader = ChunkReader.of(layout.open_group(tmp_path / "store.zarr", "r")["fields"])
    assert reader is not None
    rows = np.array([5, 0, 3, 3, 6])
    assert np.array_equal(reader.read(rows), array.oindex[rows, slice(None)], equal_nan=True)
    assert np.isnan(reader.read(np.array([6]))).all()  # never written


def test_a_plain_chunk_that_ends_early_is_refused(tmp_path):
    group = layout.open_group(tmp_path / "store.zarr", "w")
    layout.create_array(group, "fields", (2, 1, 4, 6), (1, 1, 4, 6), DIMS, compress=False)[:] = 1.0
    chunk = tmp_path / "store.zarr" / "fields" / "1.0.0.0"
    assert chunk.stat().st_size == 4 * 4 * 6
    chunk.write_bytes(chunk.read_bytes()[:50])
    reader = ChunkReader.of(layout.open_group(tmp_path / "store.zarr", "r")["fields"])
    with pytest.raises(ValueError, match="ends early"):
        reader.read(np.array([0, 1]))


def test_arrays_of_another_layout_are_left_to_zarr(tmp_path):
    group = zarr.open_group(str(tmp_path / "other.zarr"), mode="w", zarr_format=3)
    array = group.create_array("fields", shape=(4, 1, 2, 2), chunks=(1, 1, 2, 2), dtype="float32")
    assert ChunkReader.of(array) is None


def test_the_nearest_distance_of_many_times_takes_little_memory():
    minutes = np.arange(92_044, dtype=np.int64) * 360  # six-hourly from 1959 to 2022
    assert _nearest_span(minutes, 92_044 * 360 + 100) == 92_043 * 360
    assert _nearest_span(minutes, 100) == 360
    assert _nearest_span(minutes[:1], 100) == 0
