"""VTK's image data (.vti): an XML header, and arrays of points in text, in base64 or raw, perhaps compressed.

A plane in time is one file whose third axis is time, or a file for each time. Format: The VTK User's Guide, 11th
edition, "VTK File Formats".
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from domains.fluids.data.boundary import Boundary
from domains.fluids.data.readers.cgl import BOUNDARY, WINDS
from domains.fluids.data.readers.obstacles import obstacles
from domains.fluids.data.readers.source import Axis, FlowSource
from sciml.core.errors import DataError

VELOCITIES = ("velocity", "vel", "u", "v", "uv", "wind", "flow")
"""Names of a vector that is the wind, in small letters; else it is the one that the file calls its vectors."""
TYPES = {"Float32": "f4", "Float64": "f8", "Int32": "i4", "Int64": "i8", "UInt8": "u1", "Int16": "i2"}
HEADERS = {"UInt32": "u4", "UInt64": "u8"}
APPENDED = re.compile(rb"<AppendedData[^>]*>\s*_")
LARGEST_HEADER = 2**24


@dataclass(frozen=True)
class VTIFile:
    """Reads the arrays of one file.

    Attributes:
        header: all of it but the appended values.
        data_start: of the appended values in the file, bytes.
    """

    file: str
    header: ElementTree.Element
    data_start: int

    @classmethod
    def read(cls, file: str) -> VTIFile:
        """Reads the header of a file.

        Raises:
            DataError: it is no image data of VTK, or damaged.
        """
        try:
            content = Path(file).read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error
        mark = APPENDED.search(content)
        text, start = (content, 0) if mark is None else (content[: mark.start()], mark.end())
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text or len(text) > LARGEST_HEADER * (1 if mark else 64):
            raise DataError(f"{file}: declares entities or is too long for a header; write it anew by VTK")
        if mark is not None:
            encoding = re.search(rb"encoding\s*=\s*[\"'](\w+)", mark.group(0))
            text += b'<AppendedData encoding="%s"/></VTKFile>' % (encoding.group(1) if encoding else b"base64")
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise DataError(f"{file}: is damaged or no XML file of VTK ({error})") from error
        if root.tag != "VTKFile" or root.get("type") != "ImageData" or root.find("ImageData") is None:
            raise DataError(f"{file}: is {root.get('type') or root.tag}; VTK's ImageData is needed")
        return cls(file, root, start)

    @cached_property
    def image(self) -> ElementTree.Element:
        image = self.header.find("ImageData")
        assert image is not None
        return image

    def numbers(self, key: str, default: str) -> tuple[float, ...]:
        """Returns the numbers of an attribute of the image."""
        try:
            return tuple(map(float, self.image.get(key, default).split()))
        except ValueError as error:
            raise DataError(f"{self.file}: {key} must be numbers, got {self.image.get(key)!r}") from error

    @cached_property
    def points(self) -> tuple[int, int, int]:
        """Returns the numbers of points, or of cells where these have the arrays, along x, y and the third axis."""
        extent = self.numbers("WholeExtent", "")
        pieces = self.image.findall("Piece")
        if len(extent) != 6 or len(pieces) != 1:
            raise DataError(f"{self.file}: one piece with a WholeExtent of 6 numbers is needed, found {len(pieces)}")
        more = int(self.has_points)
        nx, ny, nt = (max(int(high - low) + more, 1) for low, high in zip(extent[::2], extent[1::2], strict=True))
        return nx, ny, nt

    @cached_property
    def has_points(self) -> bool:
        """Says whether values are those of points, and not of the cells between them."""
        return self.image.find("Piece/PointData/DataArray") is not None

    @cached_property
    def lowest(self) -> tuple[float, ...]:
        """Returns the coordinates of the first point, or of the middle of the first cell, along all axes.

        Raises:
            DataError: they are not told by numbers as VTK writes them.
        """
        spacing, origin = self.numbers("Spacing", "1 1 1"), self.numbers("Origin", "0 0 0")
        if len(spacing) != 3 or len(origin) != 3 or min(spacing) <= 0:
            raise DataError(f"{self.file}: Spacing and Origin must be 3 numbers each, and spacings above 0")
        within = 0.0 if self.has_points else 0.5  # the origin is that of the point with the number 0
        numbers = (low + within for low in self.numbers("WholeExtent", "")[::2])
        return tuple(start + number * step for start, number, step in zip(origin, numbers, spacing, strict=True))

    @cached_property
    def wind(self) -> str | None:
        """Returns the name of the vector that is the wind; None where there is none."""
        vectors = [name for name, array in self.arrays.items() if array.get("NumberOfComponents") in ("2", "3")]
        for name in vectors:
            if name.lower() in VELOCITIES:
                return name
        for data in self.image.findall("Piece/*[@Vectors]"):
            if data.get("Vectors") in vectors:
                return data.get("Vectors")
        others = [name for name in vectors if "vort" not in name.lower()]
        return others[0] if others else None

    @cached_property
    def time(self) -> float | None:
        """Returns the time of a file of one, as VTK and ParaView write it; None where it is not told."""
        told = self.image.find("FieldData/DataArray[@Name='TimeValue']")
        return None if told is None else float(self.values(told)[0, 0])

    @cached_property
    def arrays(self) -> Mapping[str, ElementTree.Element]:
        """Returns the arrays of points, by name; those of cells where there is none of points."""
        for kind in ("PointData", "CellData"):
            found = self.image.findall(f"Piece/{kind}/DataArray")
            if found:
                return {array.get("Name", f"array {number}"): array for number, array in enumerate(found)}
        raise DataError(f"{self.file}: there is no array in it")

    def values(self, array: ElementTree.Element) -> np.ndarray:
        """Returns the values of an array, (point, component).

        Raises:
            DataError: of an unknown type, or damaged.
        """
        name, kind = array.get("Name", ""), TYPES.get(array.get("type", ""))
        if kind is None:
            raise DataError(f"{self.file}: {name} is of type {array.get('type')}; one of {', '.join(TYPES)} is needed")
        order = "<" if self.header.get("byte_order", "LittleEndian") == "LittleEndian" else ">"
        try:
            if array.get("format") == "ascii":
                flat = np.array((array.text or "").split(), dtype=order + kind)
            else:
                flat = np.frombuffer(self._bytes(array, order), order + kind)
            return flat.reshape(-1, int(array.get("NumberOfComponents", "1")))
        except (ValueError, zlib.error, IndexError, TypeError) as error:
            raise DataError(f"{self.file}: {name} is damaged or was cut off ({error})") from error

    def _bytes(self, array: ElementTree.Element, order: str) -> bytes:
        header_type = self.header.get("header_type", "UInt32")
        if header_type not in HEADERS:
            raise DataError(f"{self.file}: header_type is {header_type}; one of {', '.join(HEADERS)} is needed")
        number = np.dtype(order + HEADERS[header_type])
        compressor = self.header.get("compressor")
        if compressor not in (None, "vtkZLibDataCompressor"):
            raise DataError(f"{self.file}: is compressed by {compressor}; write it with zlib or without compression")
        if array.get("format") == "appended":
            appended = self.header.find("AppendedData")
            raw = appended is not None and appended.get("encoding") == "raw"
            content = Path(self.file).read_bytes()[self.data_start + int(array.get("offset", "0")) :]
        else:
            raw, content = False, (array.text or "").strip().encode()
        return _unpacked(content, number, raw=raw, compressed=compressor is not None)


def _unpacked(content: bytes, number: np.dtype, *, raw: bool, compressed: bool) -> bytes:
    """Returns the bytes of an array that begins with its sizes."""

    def take(count: int, start: int = 0) -> bytes:
        """Decodes so many bytes of the part that begins at a position of the encoded text."""
        if raw:
            return content[start : start + count]
        return base64.b64decode(content[start : start + -(-count // 3) * 4])[:count]

    def encoded(count: int) -> int:
        return count if raw else -(-count // 3) * 4

    size = number.itemsize
    if not compressed:
        count = int(np.frombuffer(take(size), number)[0])
        found = take(size + count)[size:]
        if len(found) < count:
            raise ValueError(f"{len(found)} of {count} bytes")
        return found
    blocks = int(np.frombuffer(take(size), number)[0])
    header = np.frombuffer(take(size * (3 + blocks)), number)
    lengths = header[3:].astype(int)
    packed = take(int(lengths.sum()), encoded(size * (3 + blocks)))
    ends = np.cumsum(lengths)
    return b"".join(zlib.decompress(packed[end - length : end]) for end, length in zip(ends, lengths, strict=True))


@dataclass(frozen=True)
class VTIFrames:
    """Reads a plane in time, of one file or of a file for each time."""

    files: tuple[str, ...]

    def read(self, times: slice, variables: Sequence[str]) -> np.ndarray:
        if len(self.files) == 1:
            return _fields(VTIFile.read(self.files[0]), variables)[times]
        return np.concatenate([_fields(VTIFile.read(file), variables) for file in self.files[times]])


def _fields(file: VTIFile, variables: Sequence[str]) -> np.ndarray:
    """Returns (time, variable, y, x)."""
    known = _components(file)
    nx, ny, nt = file.points
    fields = []
    for name in variables:
        array, component = known[name]
        values = file.values(array)[:, component]
        if len(values) != nx * ny * nt:
            raise DataError(f"{file.file}: {name} has {len(values)} values, {nx} x {ny} x {nt} are needed")
        fields.append(values.reshape(nt, ny, nx))
    return np.stack(fields, axis=1)


def _components(file: VTIFile) -> dict[str, tuple[ElementTree.Element, int]]:
    """Returns arrays and components by the names of variables."""
    found: dict[str, tuple[ElementTree.Element, int]] = {}
    for name, array in file.arrays.items():
        count = int(array.get("NumberOfComponents", "1"))
        if name == file.wind and not set(WINDS) & set(file.arrays) - {name}:
            found |= {wind: (array, number) for number, wind in enumerate(WINDS)}
        elif count == 1:
            found[name] = (array, 0)
        else:
            found |= {f"{name}_{number}": (array, number) for number in range(count)}
    return found


def open_vti(files: Sequence[str], boundary: Boundary | None) -> Iterator[FlowSource]:
    """Opens the one flow of a file whose third axis is time, or of files for one time each, in order.

    Raises:
        DataError: another kind of file, or files that do not fit together.
    """
    first = VTIFile.read(files[0])
    variables = tuple(_components(first))
    nx, ny, nt = first.points
    lowest, spacing = first.lowest, first.numbers("Spacing", "1 1 1")
    if nt == 1 and len(files) == 1:
        raise DataError(f"{first.file}: holds one time; name the folder with the files of all times")
    for file in files[1:]:
        other = VTIFile.read(file)
        if other.points != first.points or tuple(_components(other)) != variables:
            raise DataError(f"{file}: has other points or arrays than {first.file}; they are no flow together")
    if ny == 1 and nx > 1 and nt > 1:
        raise DataError(f"{first.file}: has one point along y; swap y and z, so that the plane lies along x and y")
    times = _times(files) if nt == 1 else lowest[2] + spacing[2] * np.arange(nt)
    x, y = (Axis(*values) for values in zip(lowest[:2], spacing[:2], (nx, ny), strict=True))
    frames = VTIFrames(tuple(files))
    winds = WINDS if set(WINDS) <= set(variables) else None
    mask = obstacles(frames, len(times), variables, winds)
    name = files[0] if len(files) == 1 else str(Path(files[0]).parent)
    yield FlowSource(name, variables, winds, times, x, y, boundary or BOUNDARY, frames, mask)


def _times(files: Sequence[str]) -> np.ndarray:
    """Returns the times that files of one each tell; their numbers where they do not."""
    told = [VTIFile.read(file).time for file in files]
    if None in told:
        return np.arange(len(files), dtype=np.float64)
    return np.array(told, dtype=np.float64)
