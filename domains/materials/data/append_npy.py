"""Arrays on disk that grow: numpy's own .npy files, with a header that has room for any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEADER_BYTES = 128
MAGIC = b"\x93NUMPY\x01\x00"


class GrowingArray:
    """Appends rows to a ``.npy`` file.

    Args:
        path: the file; it is made where there is none.
        dtype: of the values.
        shape: of one row.
        rows: rows that are good; what lies behind them, left by an interrupted run, is cut off.
    """

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...] = (), rows: int = 0) -> None:
        self.dtype, self.shape, self.rows = np.dtype(dtype).newbyteorder("<"), tuple(shape), rows
        self._row_bytes = self.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(HEADER_BYTES + rows * self._row_bytes)
        self._file.seek(0, 2)

    def append(self, values: np.ndarray) -> None:
        """Adds rows (n, *shape)."""
        block = np.ascontiguousarray(values, dtype=self.dtype)
        self._file.write(block.tobytes())
        self.rows += len(block)

    def extend_zeros(self, rows: int) -> None:
        """Makes it as long as ``rows``; new values are zero."""
        if rows > self.rows:
            self.append(np.zeros((rows - self.rows, *self.shape), self.dtype))

    def flush(self) -> None:
        """Brings the header up to date and everything to the disk."""
        fields = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        text = repr(fields).encode("latin1")
        room = HEADER_BYTES - len(MAGIC) - 2
        self._file.seek(0)
        self._file.write(MAGIC + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n")
        self._file.seek(0, 2)
        self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            self.flush()
            self._file.close()
