"""Reads rows of a store's fields chunk by chunk from the files, without the calls that zarr makes for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int


@dataclass(frozen=True)
class ChunkReader:
    """Reads an array (time, channel, latitude, longitude) that a store of ours holds in files of its own.

    Attributes:
        folder: holds a file for each chunk, named by its numbers.
        shape, chunks: of the array; a chunk has all latitudes and longitudes.
        codec: decompresses a file; None where files are plain.
    """

    folder: Path
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    codec: Any

    @classmethod
    def of(cls, array: Any) -> ChunkReader | None:
        """Returns the reader of a zarr array; None where it is laid out in another way than our stores are."""
        about = array.metadata
        root = getattr(array.store, "root", None)
        plain = (
            root is not None
            and about.zarr_format == 2
            and about.order == "C"
            and about.dimension_separator == "."
            and not about.filters
            and array.dtype == np.dtype("<f4")
            and len(array.shape) == 4
            and array.chunks[2:] == array.shape[2:]
        )
        codec = about.compressor if plain else None
        if root is None or not plain or getattr(codec, "codec_id", "blosc") != "blosc":
            return None
        return cls(Path(root) / array.path, array.shape, array.chunks, codec)

    def read(self, rows: Int[np.ndarray, "row"]) -> Float32[np.ndarray, "row channel latitude longitude"]:
        """Returns rows in the order asked for, each chunk read once; what was never written is NaN."""
        out = np.empty((len(rows), *self.shape[1:]), np.float32)
        times, channels = self.chunks[:2]
        numbers, places = np.divmod(np.asarray(rows), times)
        chunk = np.empty(self.chunks, np.float32)
        for number in np.unique(numbers):
            wanted = np.flatnonzero(numbers == number)
            for part, first in enumerate(range(0, self.shape[1], channels)):
                last = min(first + channels, self.shape[1])
                if times == len(wanted) == 1 and last - first == channels:
                    self._fill(out[wanted[0], first:last], int(number), part)
                else:
                    self._fill(chunk, int(number), part)
                    out[wanted, first:last] = chunk[places[wanted], : last - first]
        return out

    def _fill(self, out: Float32[np.ndarray, "..."], time: int, channel: int) -> None:
        """Reads a chunk into memory that is there: new memory takes longer than what is done with it."""
        try:
            with open(self.folder / f"{time}.{channel}.0.0", "rb", buffering=0) as file:
                if self.codec is not None:
                    self.codec.decode(file.read(), out)
                elif file.readinto(out.data.cast("B")) != out.nbytes:
                    raise ValueError(f"{file.name} ends early")
        except FileNotFoundError:
            out.fill(np.nan)
