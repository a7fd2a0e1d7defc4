"""AmiraMesh, binary: a header in text, then velocities as they lie in memory, read by memory map.

# AmiraMesh BINARY-LITTLE-ENDIAN 2.1
define Lattice nx ny nt
Parameters { BoundingBox xmin xmax ymin ymax tmin tmax, CoordType "uniform" }
Lattice { float[2] Data } @1
# Data section follows
@1
components fastest, then x, y, t
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.cgl import BOUNDARY, WINDS
from domains.fluids.data.readers.obstacles import obstacles
from domains.fluids.data.readers.source import Axis, FlowSource
from sciml.core.errors import DataError

HEADER_BYTES = 2**16
BYTE_ORDERS = {b"BINARY-LITTLE-ENDIAN": "<", b"BINARY": ">"}
TYPES = {b"float": "f4", b"double": "f8"}
DATA_MARK = re.compile(rb"\n[ \t]*@1[ \t]*\r?\n")
"""Begins the values, usually behind a comment that says so; the lattice's own ``@1`` does not stand in a line alone."""


@dataclass(frozen=True)
class AmiraFrames:
    """Says where the values of a file lie.

    Attributes:
        dtype: of numpy.
        offset: of the first value, bytes.
        shape: t, y, x and components.
    """

    file: str
    dtype: str
    offset: int
    shape: tuple[int, int, int, int]

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        values = np.memmap(self.file, self.dtype, "r", self.offset, self.shape)[times]
        return np.stack([values[..., WINDS.index(name)] for name in variables], axis=1)


def open_amira(file: str, boundary: Boundary | None) -> Iterator[FlowSource]:
    """Opens the one flow of a file; y is our z, and the third axis is time.

    Raises:
        DataError: another kind of AmiraMesh, or one that is cut off.
    """
    frames, box = _header(file)
    size, needed = (
        Path(file).stat().st_size,
        frames.offset + np.dtype(frames.dtype).itemsize * math.prod(frames.shape),
    )
    if size < needed:
        raise DataError(f"{file}: is damaged, it was cut off after {size} of {needed} bytes; download it again")
    num_times, ny, nx, _ = frames.shape
    (left, right), (bottom, top), (start, end) = box
    x, y = Axis(left, (right - left) / (nx - 1), nx), Axis(bottom, (top - bottom) / (ny - 1), ny)
    times = np.linspace(start, end, num_times)
    mask = obstacles(frames, num_times, WINDS, WINDS)
    yield FlowSource(file, WINDS, WINDS, times, x, y, boundary or BOUNDARY, frames, mask)


def _header(file: str) -> tuple[AmiraFrames, list[tuple[float, float]]]:
    with Path(file).open("rb") as stream:
        start = stream.read(HEADER_BYTES)
    kind = _found(rb"#\s*AmiraMesh\s+(\S+)", start, file, "the first line of AmiraMesh").group(1)
    if kind not in BYTE_ORDERS:
        raise DataError(f"{file}: is AmiraMesh {kind.decode(errors='replace')}; BINARY-LITTLE-ENDIAN is needed")
    lattice = _found(rb"define\s+Lattice\s+(\d+)\s+(\d+)\s+(\d+)", start, file, "'define Lattice nx ny nt'")
    data = _found(
        rb"Lattice\s*\{\s*(\w+)\s*\[\s*(\d+)\s*\]\s*\w+\s*\}\s*(@\S+)", start, file, "'Lattice { float[2] Data }'"
    )
    if data.group(1) not in TYPES or data.group(2) != b"2":
        lattice_type = b"%s[%s]" % (data.group(1), data.group(2))
        raise DataError(
            f"{file}: the lattice has {lattice_type.decode()}; float[2], the two winds of a plane, is needed"
        )
    if b"(" in data.group(3):
        raise DataError(f"{file}: the lattice is compressed; write it without compression")
    number = rb"\s+([-+.\deE]+)"
    box = [float(text) for text in _found(rb"BoundingBox" + 6 * number, start, file, "'BoundingBox'").groups()]
    offset = data.end() + _found(DATA_MARK.pattern, start[data.end() :], file, "a line '@1' before the data").end()
    nx, ny, nt = (int(text) for text in lattice.groups())
    if min(nx, ny, nt) < 2:
        raise DataError(f"{file}: a lattice of {nx} x {ny} x {nt} is no flow in a plane; 2 or more of each are needed")
    dtype = BYTE_ORDERS[kind] + TYPES[data.group(1)]
    return AmiraFrames(file, dtype, offset, (nt, ny, nx, 2)), list(zip(box[::2], box[1::2], strict=True))


def _found(pattern: bytes, start: bytes, file: str, what: str) -> re.Match[bytes]:
    match = re.search(pattern, start)
    if match is None:
        raise DataError(f"{file}: {what} is missing in its header; it is damaged or no binary AmiraMesh of a plane")
    return match
