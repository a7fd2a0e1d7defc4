"""A safetensors file written as a stream and hashed as it passes; the library's own writer needs all of it in memory.

Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
BLOCK = 1 << 20
"""Bytes hashed and written at a time: they are still in the cache when they are written."""


def write_safetensors(
    file: Path, like: Mapping[str, Tensor], value: Callable[[str], Tensor], metadata: Mapping[str, str]
) -> str:
    """Writes a safetensors file, one tensor after the other: only one of them need be in memory.

    Args:
        like: shape and type of each tensor; may be on the meta device.
        value: gives a tensor when its turn comes, on the CPU.

    Returns:
        SHA-256 of the file.
    """
    names = sorted(like, key=lambda name: (-like[name].element_size(), name))  # wide types first keeps all aligned
    keys = {dtype: key for key, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        begin, end = end, end + like[name].nbytes
        facts = {"dtype": keys[like[name].dtype], "shape": list(like[name].shape), "data_offsets": [begin, end]}
        header[name] = facts
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with file.open("wb") as stream:
        head = len(text).to_bytes(8, "little") + text
        digest.update(head)
        stream.write(head)
        for name in names:
            raw = value(name).contiguous().reshape(-1).view(torch.uint8).numpy().data
            for begin in range(0, len(raw), BLOCK):
                block = raw[begin : begin + BLOCK]
                digest.update(block)
                stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())  # a folder must not outlive a power cut that its files do not
    return digest.hexdigest()
