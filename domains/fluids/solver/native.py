"""The solver's step as compiled C++, where the machine has a compiler: built once, kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sciml.core.compiler import cpp_compiler

if TYPE_CHECKING:
    from domains.fluids.solver.equations import State
    from domains.fluids.solver.step import Dynamics

SOURCE = Path(__file__).with_name("kernel.cpp")
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC",
    "-shared",
)  # fmt: skip
"""Without -ffast-math, which would switch off small numbers in the whole process when the library is loaded."""
BUILD_S = 120
KINDS: dict[torch.dtype, Any] = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}


@cache
def library() -> ctypes.CDLL | None:
    """Returns the compiled kernel; None where there is no compiler, or it fails."""
    compiler = cpp_compiler()
    if compiler is None:
        return None
    source = SOURCE.read_bytes()
    key = hashlib.sha256(b"\0".join([source, compiler.encode(), *map(str.encode, FLAGS), _processor()])).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "sciml"
    path = folder / f"solver-{key[:16]}.so"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                built = Path(temporary) / path.name
                command = [compiler, *FLAGS, str(SOURCE), "-o", str(built)]
                subprocess.run(command, check=True, capture_output=True, timeout=BUILD_S)
                built.rename(path)  # whole, whoever else builds it now
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> bytes:
    """Describes the processor, whose instructions the kernel uses; a home may be shared by several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = ""
    return f"{platform.machine()} {platform.processor()} {flags}".encode()


def can_step(state: State) -> bool:
    """Says whether the kernel can step a state: numbers on the CPU that no gradient is wanted of."""
    wants_gradients = torch.is_grad_enabled() and any(field.requires_grad for field in state)
    plain = all(type(field) is Tensor and field.device.type == "cpu" and field.dtype in KINDS for field in state)
    return plain and not wants_gradients and not torch.compiler.is_compiling() and library() is not None


class NativeStep:
    """Steps states in some air by the kernel; the state is a new one each time.

    Args:
        dynamics: what is common to the steps; of fixed air and sources.
        members: of the states.
    """

    def __init__(self, dynamics: Dynamics, members: int) -> None:
        found = library()
        assert found is not None
        like = dynamics.cells.dens
        self.members, self.dx, self.dz, self.dtype = members, dynamics.dx, dynamics.dz, like.dtype
        self.kind = KINDS[like.dtype]
        self.function = found.step_float32 if like.dtype is torch.float32 else found.step_float64
        self.function.argtypes = [
            *(ctypes.c_int,) * 3, self.kind, self.kind, ctypes.c_int, *(ctypes.c_void_p,) * 8,
        ]  # fmt: skip
        self.function.restype = None
        self.cells, self.faces = ([self._whole(part) for part in air] for air in (dynamics.cells, dynamics.faces))
        self.ghost_ratio = self._whole(dynamics.ghost_ratio)
        jet, force = dynamics.jet, dynamics.force
        self.rows = None if jet is None else self._whole(jet.rows)
        self.jet = None if jet is None else torch.cat([self._whole(part) for part in (jet.speed, jet.theta)], 1)
        self.force = None if force is None else self._whole(force)

    def __call__(self, state: State, seconds: Float[Tensor, "..."], number: int) -> State:
        """Returns the state after a step; see :meth:`Dynamics.step`."""
        dens, momentum_x, momentum_z, theta = (field.clone(memory_format=torch.contiguous_format) for field in state)
        new = (dens, momentum_x, momentum_z, theta)
        _, nz, nx = dens.shape
        each = seconds.reshape(-1).expand(self.members).contiguous()
        sources = map(_pointer, (self.rows, self.jet, self.force))
        self.function(
            self.members, nz, nx, self.dx, self.dz, number % 2 == 0, _pointers(new), each.data_ptr(),
            _pointers(self.cells), _pointers(self.faces), self.ghost_ratio.data_ptr(), *sources,
        )  # fmt: skip
        return new

    def _whole(self, part: Shaped[Tensor, "..."]) -> Shaped[Tensor, "member value"]:
        """Returns one row for each member, in one piece."""
        return part.flatten(1).expand(self.members, -1).contiguous()


def _pointers(tensors: Any) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _pointer(tensor: Shaped[Tensor, "..."] | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
