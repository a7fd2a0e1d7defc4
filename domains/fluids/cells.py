"""Equal cells of a vertical plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from sciml.core.config import at_least


@dataclass(frozen=True)
class Cells:
    """Divides a plane into equal cells; subclasses say how large it is, in which unit, and how few cells are enough.

    Attributes:
        nx: cells along x.
        nz: cells along z.

    Raises:
        ConfigError: there are too few.
    """

    length: ClassVar[float]
    height: ClassVar[float]
    fewest: ClassVar[int]

    nx: int
    nz: int

    def __post_init__(self) -> None:
        for key in ("nx", "nz"):
            at_least(getattr(self, key), self.fewest, key, example=64)

    @property
    def dx(self) -> float:
        """Returns the width of a cell."""
        return self.length / self.nx

    @property
    def dz(self) -> float:
        """Returns the height of a cell."""
        return self.height / self.nz

    @property
    def x(self) -> Float[np.ndarray, "x"]:
        """Returns the centers of cells."""
        return (np.arange(self.nx) + 0.5) * self.dx

    @property
    def z(self) -> Float[np.ndarray, "z"]:
        """Returns the centers of cells."""
        return (np.arange(self.nz) + 0.5) * self.dz
