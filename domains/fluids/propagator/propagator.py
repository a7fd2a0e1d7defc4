"""A step that is fitted and not trained: what the wind carries, and a linear map of the state.

Sound, gravity waves and diffusion are linear maps of small departures, and nearly the same at every place along a
periodic axis; what is left of a step is mostly what the wind carries along. So a state after a step is nearly the
state that its wind has carried, plus a linear map of the state and of what carrying has changed. In waves along
periodic axes that map has one matrix a wave, between all variables at all heights, and its least squares are solved at
once (:mod:`domains.fluids.propagator.fit`): an exponential integrator whose matrices come from data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from domains.fluids.amr.indicator_inputs import WINDS
from domains.fluids.data.mirror import turned_by_mirror
from domains.fluids.data.schema import DataSet, Scale
from domains.fluids.prior_step import PriorStep, Stepped
from domains.fluids.propagator.carry import carried
from domains.fluids.solver.cases import Flow
from sciml.nn.regrid import regrid
from sciml.nn.topology import Plane, Side

MAX_CELLS = (32, 64)
"""Most cells along z and x on which the linear map acts; finer detail goes with the wind."""


@dataclass(frozen=True)
class Waves:
    """Takes fields on a grid apart into waves along periodic axes, and puts them together again.

    Where x is not periodic, fields are continued by their mirror images. Fields at all heights are one vector, but
    along a periodic z, where there are waves too.

    Attributes:
        cells: of the grid, along z and x.
        odd: of which fields a mirror that x is normal to changes the sign.
    """

    cells: tuple[int, int]
    plane: Plane
    odd: tuple[bool, ...]

    @property
    def _columns(self) -> int:
        return self.cells[1] * (1 if self.plane.x[0] is Side.PERIODIC else 2)

    @property
    def _has_rows(self) -> bool:
        return self.plane.z[0] is Side.PERIODIC

    @property
    def shape(self) -> tuple[int, int]:
        """Returns the number of waves, and that of the numbers that each field has in one."""
        columns = self._columns // 2 + 1
        return (columns * self.cells[0], 1) if self._has_rows else (columns, self.cells[0])

    def of(self, fields: Float[Tensor, "batch field z x"]) -> Complex[Tensor, "wave batch _number"]:
        """Returns the waves of fields, those of each field one after another."""
        if self.plane.x[0] is not Side.PERIODIC:
            mirrors = Plane((Side.WALL, Side.WALL), self.plane.z)
            fields = mirrors.pad(fields, (0, self.cells[1], 0, 0), (self._odd(fields.shape[1]), ()))
        waves = torch.fft.rfft(fields, norm="ortho")
        if self._has_rows:
            return torch.fft.fft(waves, dim=-2, norm="ortho").permute(2, 3, 0, 1).flatten(0, 1)
        return waves.permute(3, 0, 1, 2).flatten(2)

    def fields(self, waves: Complex[Tensor, "wave batch _number"], count: int) -> Float[Tensor, "batch field z x"]:
        """Returns the so many fields that have these waves."""
        if self._has_rows:
            spectrum = torch.fft.ifft(waves.unflatten(0, (self.cells[0], -1)).permute(2, 3, 0, 1), dim=-2, norm="ortho")
        else:
            spectrum = waves.unflatten(2, (count, self.cells[0])).permute(1, 2, 3, 0)
        return torch.fft.irfft(spectrum, n=self._columns, norm="ortho")[..., : self.cells[1]]

    def mirrored(self, products: Complex[Tensor, "wave _number _other"]) -> Complex[Tensor, "wave _number _other"]:
        """Returns products of the waves of fields as the fields' mirror images along a periodic x have them."""
        if self._has_rows:  # the image of a wave that goes up goes up
            rows = self.cells[0]
            opposite = (-torch.arange(rows, device=products.device)) % rows
            products = products.unflatten(0, (rows, -1))[opposite].flatten(0, 1)
        here, there = (self._signs(count) for count in products.shape[1:])
        return products.conj() * here.to(products)[:, None] * there.to(products)

    def _signs(self, count: int) -> Float[Tensor, "_number"]:
        """Returns the signs of so many numbers of a wave in a mirror."""
        numbers = self.shape[1]
        signs = torch.tensor([-1.0 if odd else 1.0 for odd in self._odd(count // numbers)])
        return signs.repeat_interleave(numbers)

    def _odd(self, count: int) -> list[bool]:
        """Says it of several sets of the fields."""
        return list(self.odd) * (count // len(self.odd))


@dataclass(frozen=True)
class Propagator:
    """Carries states of one data set over a step.

    It acts twice: the second time the wind is the mean of those before and after the step, as the first time says.

    Attributes:
        matrices: from the state and from what carrying has changed to what else changes, of each wave; one for each
            time that it acts. Real and imaginary parts.
        gain: share of the changes that it makes, of each variable: one where it is right, zero where it is worth
            nothing.
        mean, std: by which states are normalized, of each variable.
        seconds: of the step.
    """

    data_set: DataSet
    matrices: Float[Tensor, "stage wave _input _output 2"]
    gain: Float[Tensor, "variable"]
    mean: Float[Tensor, "variable"]
    std: Float[Tensor, "variable"]
    seconds: float

    @classmethod
    def of(cls, data_set: DataSet, scale: Scale) -> Propagator | None:
        """Returns the one that was fitted to a data set; None where none was, or it was worth nothing."""
        if not scale.propagator.numel():
            return None
        seconds = float(scale.propagator_seconds)
        return cls(data_set, scale.propagator.float(), scale.propagator_gain, scale.mean, scale.std, seconds)

    @classmethod
    def unfitted(cls, data_set: DataSet, scale: Scale, seconds: float) -> Propagator:
        """Returns the one that does not act yet."""
        return cls(data_set, torch.zeros(0, 0, 0, 0, 2), torch.ones_like(scale.std), scale.mean, scale.std, seconds)

    @property
    def waves(self) -> Waves:
        """Returns the waves of its grid."""
        rows, columns = self.data_set.shape
        cells = (min(rows, MAX_CELLS[0]), min(columns, MAX_CELLS[1]))
        return Waves(cells, self.data_set.boundary, tuple(turned_by_mirror(self.data_set.variables)))

    @property
    def _has_wind(self) -> bool:
        return set(WINDS.values()) <= set(self.data_set.variables)

    @property
    def num_inputs(self) -> int:
        """Returns the number of fields that the matrices act on."""
        return len(self.data_set.variables) * (2 if self._has_wind else 1)

    def __call__(
        self, fields: Float[Tensor, "batch variable z x"], seconds: Float[Tensor, "batch"], longest: float
    ) -> Float[Tensor, "batch variable z x"]:
        """Returns the fields after some seconds, by as many steps as come nearest, at least one.

        Args:
            fields: in the units of the data, on any grid of the domain.
            longest: step that is asked for, s.
        """
        steps = (seconds / self.seconds).round()
        for number in range(max(1, round(longest / self.seconds))):
            after = self.step(fields)
            if number:
                after = torch.where((number < steps)[:, None, None, None].to(fields.device), after, fields)
            fields = after
        return fields

    def step(self, fields: Float[Tensor, "batch variable z x"]) -> Float[Tensor, "batch variable z x"]:
        """Returns the fields after one step."""
        after = fields
        for stage in range(len(self.matrices)):
            carried_along, inputs = self.inputs(fields, after)
            known, matrices = self.waves.of(inputs), torch.view_as_complex(self.matrices[stage])
            changed = self.waves.fields(torch.bmm(known, matrices.to(known.dtype)), fields.shape[1]) * self._std
            rows, columns = fields.shape[-2:]
            after = carried_along + regrid(changed, (rows, columns), self.data_set.boundary)
        return torch.lerp(fields, after, self.gain[:, None, None])

    def inputs(
        self, fields: Float[Tensor, "batch variable z x"], after: Float[Tensor, "batch variable z x"]
    ) -> tuple[Float[Tensor, "batch variable z x"], Float[Tensor, "batch input _z _x"]]:
        """Returns the fields that the wind has carried, and what the matrices act on: on their grid, normalized.

        Args:
            after: the fields after the step, as far as is known; the wind is the mean of both.
        """
        known = self.on_grid(fields - self.mean[:, None, None])
        names = self.data_set.variables
        if not self._has_wind:
            return fields, known
        chosen = [names.index(WINDS[axis]) for axis in ("x", "z")]
        rows, columns = fields.shape[-2:]
        spacing = (
            self.data_set.dx * self.data_set.shape[1] / columns,
            self.data_set.dz * self.data_set.shape[0] / rows,
        )
        wind = (fields[:, chosen] + after[:, chosen]) / 2
        seconds = fields.new_full((len(fields), 1, 1), self.seconds)
        moved = carried(fields, wind, seconds, spacing, self.data_set.boundary)
        return moved, torch.cat([known, self.on_grid(moved - fields)], dim=1)

    def on_grid(self, fields: Float[Tensor, "batch variable z x"]) -> Float[Tensor, "batch variable _z _x"]:
        """Returns differences of fields on the grid of the matrices, normalized."""
        return regrid(fields, self.waves.cells, self.data_set.boundary) / self._std

    @property
    def _std(self) -> Float[Tensor, "variable 1 1"]:
        return self.std[:, None, None]


def propagator_step(data_set: DataSet, scale: Scale, longest_stride: int) -> PriorStep:
    """Returns the step that was fitted to the training flows of a data set; nothing changes where none is worth it."""
    propagator = Propagator.of(data_set, scale)
    longest = longest_stride * data_set.interval

    def step(
        fields: Float[Tensor, "batch variable z x"],
        profiles: Float[Tensor, "batch 2 z"] | None,
        seconds: Float[Tensor, "batch"],
        flows: Sequence[Flow] | None = None,
    ) -> Stepped:
        after = fields if propagator is None else propagator(fields, seconds, longest)
        return Stepped(after, scale.left_over(seconds))

    return step
