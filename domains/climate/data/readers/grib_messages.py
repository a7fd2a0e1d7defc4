"""Checks that a GRIB file is whole, and opens its messages, those that speak of periods by where these begin.

The library reads the messages before a cut and says nothing of the rest. Each message tells its length in its first
bytes and ends with ``7777``. It also takes one of several messages that end at the same time, whatever they are summed
over; so those of each beginning are opened by themselves.

Source: WMO Manual on Codes, FM 92 GRIB; for long messages of edition 1 the convention of ECMWF's ecCodes.
"""

from __future__ import annotations

import mmap
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from domains.climate.data.readers.periods import STARTS
from sciml.core.errors import DataError

START, END = b"GRIB", b"7777"
_LONG = 0x800000
_AT_A_TIME = ("instant", "undef")


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


class _Messages(Mapping[Any, Any]):
    """Shows some of a file's messages to the library, each read when it is asked for."""

    def __init__(self, stream: Any, places: list[Any]) -> None:
        self._stream, self._places = stream, places

    def __getitem__(self, place: Any) -> Any:
        return self._stream[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def open_messages(path: str) -> list[xr.Dataset]:
    """Opens a file as datasets of one variable and type of level each; those that speak of periods say where these
    begin (:data:`domains.climate.data.readers.periods.STARTS`).
    """
    from cfgrib import messages, xarray_store
    from cfgrib.cfmessage import from_grib_step

    stream = messages.FileStream(path)
    groups: dict[tuple[Hashable, Hashable, float | None], list[Any]] = defaultdict(list)
    for place, message in stream.items():
        kind = message.get("stepType", "undef")
        start = None if kind in _AT_A_TIME else from_grib_step(message, "startStep:int")
        groups[message.get("paramId"), kind, start].append(place)
    datasets: list[xr.Dataset] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of cfgrib and of xarray's old defaults in it
        for (_, _, start), places in groups.items():
            part = _Messages(stream, places)
            for dataset in xarray_store.raw_open_datasets(part, {}, cache=False, decode_timedelta=True):
                for array in dataset.data_vars.values():
                    array.attrs |= {} if start is None else {STARTS: start}
                datasets.append(dataset)
    return datasets
