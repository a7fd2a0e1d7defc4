"""FIRE for many structures at once, each with a time step of its own.

Source: Bitzek et al. (2006), https://doi.org/10.1103/PhysRevLett.97.170201, with ASE's settings, so that each structure
takes the steps that ASE's FIRE would take with it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TIME_STEP, LONGEST_TIME_STEP, LONGEST_STEP = 0.1, 1.0, 0.2
PATIENCE, GROWTH, CUT, MIXING, MIXING_DECAY = 5, 1.1, 0.5, 0.1, 0.99


class Fire:
    """Moves coordinates of structures downhill.

    Attributes:
        velocity: of each row of coordinates.
        time_step, mixing: of each structure.
        downhill: steps since a structure last went uphill.
        steps: that each structure has taken.
    """

    def __init__(self) -> None:
        self.velocity = torch.zeros(0, 3, dtype=torch.float64)
        self.time_step = torch.zeros(0, dtype=torch.float64)
        self.mixing = torch.zeros(0, dtype=torch.float64)
        self.downhill = torch.zeros(0, dtype=torch.int64)
        self.steps = torch.zeros(0, dtype=torch.int64)

    def add(self, structures: int) -> None:
        """Takes in structures that have not moved yet; their velocities are set with their rows."""
        for name, value in (("time_step", TIME_STEP), ("mixing", MIXING), ("downhill", 0), ("steps", 0)):
            old: Tensor = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_full((structures,), value)]))

    def keep(self, wanted: Bool[Tensor, "graph"]) -> None:
        """Lets other structures go."""
        for name in ("time_step", "mixing", "downhill", "steps"):
            setattr(self, name, getattr(self, name)[wanted])

    def step(self, forces: Float[Tensor, "row 3"], row_graph: Int[Tensor, "row"]) -> Float[Tensor, "row 3"]:
        """Returns how far each row of coordinates moves.

        Args:
            forces: on them.
            row_graph: the structure of each row.
        """

        def dot(a: Float[Tensor, "row 3"], b: Float[Tensor, "row 3"]) -> Float[Tensor, "graph"]:
            return a.new_zeros(len(self.steps)).index_add(0, row_graph, (a * b).sum(1))

        power, moving = dot(forces, self.velocity), self.steps > 0
        forward, back = moving & (power > 0), moving & (power <= 0)
        size = dot(forces, forces).clamp(min=torch.finfo(torch.float64).tiny).sqrt()
        mixed = self.mixing * dot(self.velocity, self.velocity).sqrt() / size
        keep = torch.where(forward, 1 - self.mixing, torch.where(back, 0.0, 1.0))
        turn = torch.where(forward, mixed, torch.zeros_like(mixed))
        self.velocity = keep[row_graph, None] * self.velocity + turn[row_graph, None] * forces
        patient = forward & (self.downhill > PATIENCE)
        grown = (self.time_step * GROWTH).clamp(max=LONGEST_TIME_STEP)
        self.time_step = torch.where(patient, grown, torch.where(back, CUT * self.time_step, self.time_step))
        self.mixing = torch.where(patient, MIXING_DECAY * self.mixing, torch.where(back, MIXING, self.mixing))
        self.downhill = torch.where(forward, self.downhill + 1, torch.where(back, 0, self.downhill))
        self.steps = self.steps + 1
        self.velocity = self.velocity + self.time_step[row_graph, None] * forces
        change = self.time_step[row_graph, None] * self.velocity
        length = dot(change, change).sqrt()
        return change * (LONGEST_STEP / length.clamp(min=LONGEST_STEP))[row_graph, None]
