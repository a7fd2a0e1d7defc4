"""Fields on another grid: as torch has them in the middle, over the edges as a topology has them."""

import pytest
import torch
import torch.nn.functional as F

from sciml.nn.regrid import regrid
from sciml.nn.topology import Plane, Side, Sphere

WALLS = Plane((Side.WALL, Side.WALL), (Side.OPEN, Side.OPEN))
AROUND = Plane((Side.PERIODIC, Side.PERIODIC), (Side.WALL, Side.WALL))


@pytest.mark.parametrize("cells", [(16, 32), (12, 20), (8, 40)])
def test_between_walls_it_is_bilinear_interpolation(cells):
    fields = torch.randn(2, 3, 8, 10, dtype=torch.float64)
    expected = F.interpolate(fields, cells, mode="bilinear", align_corners=False)
    torch.testing.assert_close(regrid(fields, cells, WALLS), expected)


def test_a_wave_that_repeats_has_no_seam():
    def wave(columns):
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) / columns
        return torch.sin(2 * torch.pi * (x + 0.1)).expand(1, 1, 4, columns)

    error = (regrid(wave(32), (4, 96), AROUND) - wave(96)).abs()[0, 0, 0]
    assert error.max() < 0.006
    assert error[[0, -1]].max() <= error.max()
    seam = (F.interpolate(wave(32), (4, 96), mode="bilinear") - wave(96)).abs()[0, 0, 0]
    assert seam[[0, -1]].max() > 10 * error.max()


def test_turning_before_is_turning_after():
    fields = torch.randn(1, 1, 6, 8)
    turned = regrid(fields.roll(1, -1), (6, 24), AROUND)
    torch.testing.assert_close(turned, regrid(fields, (6, 24), AROUND).roll(3, -1))


def test_over_a_pole_lies_the_other_side():
    fields = torch.arange(8.0).expand(1, 1, 4, 8)
    fine = regrid(fields, (8, 8), Sphere())
    # a quarter of a cell from the first row's middle towards the row beyond the pole, half a turn further
    torch.testing.assert_close(fine[0, 0, 0], 0.75 * fields[0, 0, 0] + 0.25 * fields[0, 0, 0].roll(4))


def test_larger_cells_hold_means():
    fields = torch.randn(1, 2, 8, 12)
    torch.testing.assert_close(regrid(fields, (4, 6), AROUND), F.avg_pool2d(fields, 2))
    assert regrid(fields, (8, 12), AROUND) is fields


def overlaps(size: int, cells: int) -> torch.Tensor:
    """Shares of each given cell in each new one, by their ends alone."""
    ends, others = (torch.linspace(0, 1, count + 1, dtype=torch.float64) for count in (cells, size))
    low, high = torch.maximum(ends[:-1, None], others[:-1]), torch.minimum(ends[1:, None], others[1:])
    return (high - low).clamp(min=0) * cells


@pytest.mark.parametrize("cells", [(3, 7), (5, 9), (7, 12), (8, 5)])
def test_larger_cells_that_do_not_fit_hold_what_lies_within_them(cells):
    fields = torch.randn(1, 2, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = overlaps(8, cells[0]) @ fields @ overlaps(12, cells[1]).T
    found = regrid(fields, cells, AROUND)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.mean((2, 3)), fields.mean((2, 3)))


def test_each_axis_is_regridded_as_it_needs():
    fields = torch.randn(1, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    means = F.avg_pool2d(fields, (2, 1))
    torch.testing.assert_close(regrid(fields, (4, 24), AROUND), regrid(means, (4, 24), AROUND))
