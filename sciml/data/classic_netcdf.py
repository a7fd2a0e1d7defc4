"""Checks that a NetCDF file of the classic format is whole.

The library reads what a cut-off download lacks as zeros and says nothing, and zeros of packed integers are
plausible numbers. The header tells where the last value must lie.

Source: the NetCDF classic format specification, https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from sciml.core.errors import DataError

T = TypeVar("T")

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_STREAMING = (2**32 - 1, 2**64 - 1)  # the number of records was not known when the header was written


def check_whole(path: str) -> None:
    """Refuses a classic file that ends before its last value; passes over any other format.

    Raises:
        DataError: the file is cut off.
    """
    with Path(path).open("rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\x01", b"\x02", b"\x05"):
            return
        try:
            needed = _Header(file, magic[3]).last_byte()
        except (struct.error, KeyError, IndexError) as error:
            raise DataError(f"{path}: cannot be opened, it is damaged (its header ends too early)") from error
    size = Path(path).stat().st_size
    if size < needed:
        raise DataError(f"{path}: is damaged, it was cut off after {size} of {needed} bytes; download it again")


@dataclass
class _Variable:
    begin: int
    record: bool
    num_bytes: int  # of one record, or of all


class _Header:
    """Reads a classic header from behind its magic number."""

    def __init__(self, file: BinaryIO, version: int) -> None:
        self.file = file
        self.count_format = ">Q" if version == 5 else ">I"
        self.offset_format = ">I" if version == 1 else ">Q"
        self.num_records = self._number(self.count_format)
        self.dims = self._list(self._dim)
        self._list(self._attribute)
        self.variables = self._list(self._variable)

    def last_byte(self) -> int:
        records = [v for v in self.variables if v.record]
        # a single record variable is packed, several are padded to four bytes
        stride = records[0].num_bytes if len(records) == 1 else sum(-(-v.num_bytes // 4) * 4 for v in records)
        ends = [v.begin + v.num_bytes for v in self.variables if not v.record]
        if self.num_records not in _STREAMING and self.num_records > 0:
            ends += [v.begin + (self.num_records - 1) * stride + v.num_bytes for v in records]
        return max(ends, default=0)

    def _number(self, how: str) -> int:
        return int(struct.unpack(how, self.file.read(struct.calcsize(how)))[0])

    def _list(self, item: Callable[[], T]) -> list[T]:
        self._number(">I")  # what it is a list of
        return [item() for _ in range(self._number(self.count_format))]

    def _name(self) -> None:
        self._skip(self._number(self.count_format))

    def _skip(self, num_bytes: int) -> None:
        self.file.seek(-(-num_bytes // 4) * 4, 1)

    def _dim(self) -> int:
        self._name()
        return self._number(self.count_format)

    def _attribute(self) -> None:
        self._name()
        width = _TYPE_BYTES[self._number(">I")]
        self._skip(width * self._number(self.count_format))

    def _variable(self) -> _Variable:
        self._name()
        shape = [self.dims[self._number(self.count_format)] for _ in range(self._number(self.count_format))]
        self._list(self._attribute)
        width = _TYPE_BYTES[self._number(">I")]
        self._number(self.count_format)  # its size, which overflows for large variables
        record = bool(shape) and shape[0] == 0
        return _Variable(self._number(self.offset_format), record, width * math.prod(shape[1:] if record else shape))
