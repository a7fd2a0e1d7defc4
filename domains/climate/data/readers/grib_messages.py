"""Checks that a GRIB file is whole, message by message.

The library reads the messages before a cut and says nothing of the rest. Each message tells its length in its first
bytes and ends with ``7777``.

Source: WMO Manual on Codes, FM 92 GRIB; for long messages of edition 1 the convention of ECMWF's ecCodes.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from sciml.core.errors import DataError

START, END = b"GRIB", b"7777"
_LONG = 0x800000


def check_messages(path: str) -> None:
    """Refuses a file that ends within a message, or whose messages do not end where they say.

    Raises:
        DataError: naming the byte.
    """
    size = Path(path).stat().st_size
    if size == 0:
        raise DataError(f"{path}: is empty; download it again")
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begin = content.find(START)
        if begin < 0:
            raise DataError(f"{path}: is no GRIB file, it has no message in it")
        number = 0
        while begin >= 0:
            number += 1
            end = begin + _length(content, begin)
            if end > size or end <= begin:
                raise DataError(
                    f"{path}: is damaged, it was cut off at byte {size}: message {number} begins at byte {begin} and "
                    f"ends at byte {end}; download it again"
                    if end > begin
                    else f"{path}: is damaged, message {number} at byte {begin} has no length; download it again"
                )
            if content[end - 4 : end] != END:
                raise DataError(
                    f"{path}: is damaged, message {number} from byte {begin} does not end at byte {end} as it says; "
                    "download it again"
                )
            begin = content.find(START, end)


def _length(content: mmap.mmap, begin: int) -> int:
    """Returns the bytes of a message; 0 where its header ends too early."""
    header = content[begin : begin + 16]
    if len(header) < 16:
        return len(content) - begin + 16 - len(header)
    if header[7] == 2:
        return int.from_bytes(header[8:16], "big")
    total = int.from_bytes(header[4:7], "big")
    if not total & _LONG:
        return total
    # messages above 8 MiB count in units of 120 bytes; the data section says how much of the last is not there
    at = begin + 8
    flags = content[at + 7]
    at += int.from_bytes(content[at : at + 3], "big")
    for bit in (0x80, 0x40):  # grid description, bitmap
        if flags & bit:
            at += int.from_bytes(content[at : at + 3], "big")
    data = int.from_bytes(content[at : at + 3], "big")
    return (total & (_LONG - 1)) * 120 - data + 4 if data < 120 else total
