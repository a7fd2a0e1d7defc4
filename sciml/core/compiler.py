"""Finds the programs that compile code for a device."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes long to import
    import torch

COMPILERS = ("g++", "clang++")
"""C++ compilers, in the order in which they are taken."""


def cpp_compiler() -> str | None:
    """Returns the path of the machine's C++ compiler; None where it has none."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def can_compile(device: torch.device) -> bool:
    """Says whether torch can compile for a device here: a CPU needs a C++ compiler, others Triton."""
    return (cpp_compiler() if device.type == "cpu" else find_spec("triton")) is not None
