"""The neighbors of cells at the edges of a sphere, and of planes."""

import pytest
import torch

from sciml.nn.topology import Cap, Plane, Planes, Side, Sphere

LATITUDE = torch.arange(-75.0, 90.0, 30.0).deg2rad()
LONGITUDE = torch.arange(0.0, 360.0, 45.0).deg2rad()


def on_the_sphere(values):
    """A smooth function of the point on the sphere, at all points of the grid, and one row and column beyond."""
    step_y, step_x = LATITUDE[1] - LATITUDE[0], LONGITUDE[1] - LONGITUDE[0]
    latitude = torch.cat([LATITUDE[:1] - step_y, LATITUDE, LATITUDE[-1:] + step_y])
    longitude = torch.cat([LONGITUDE[:1] - step_x, LONGITUDE, LONGITUDE[-1:] + step_x])
    x = latitude.cos()[:, None] * longitude.cos()
    y = latitude.cos()[:, None] * longitude.sin()
    return values(x, y, latitude.sin()[:, None].expand_as(x))


def test_a_scalar_goes_on_smoothly_over_the_poles():
    around = on_the_sphere(lambda x, y, z: x + 2 * x * y - z * y)
    inside = around[1:-1, 1:-1]
    torch.testing.assert_close(Sphere().pad(inside[None], 1)[0], around)


@pytest.mark.parametrize(
    ("on_poles", "first", "step"),
    [((True, True), -90.0, 30.0), ((True, False), -90.0, 40.0), ((False, True), -70.0, 40.0)],
)
def test_a_row_on_a_pole_is_no_row_of_the_other_side(on_poles, first, step):
    """A smooth function goes on beyond both poles, whether or not a row lies on them."""
    rows = torch.arange(first - step, 91 + step, step).deg2rad()
    x, y = rows.cos()[:, None] * LONGITUDE.cos(), rows.cos()[:, None] * LONGITUDE.sin()
    around = x + 2 * x * y - rows.sin()[:, None] * y
    inside = around[None, 1:-1]
    torch.testing.assert_close(Sphere(on_poles).pad(inside, (0, 0, 1, 1))[0], around, atol=1e-6, rtol=0)
    assert Sphere(on_poles).endless(inside).shape[-2] == 2 * inside.shape[-2] - sum(on_poles)


def test_a_vector_turns_around_over_the_poles():
    """The wind of a flow straight over the pole, (u, v) = (-sin, -sin(latitude) cos), keeps its direction in space."""
    step = LATITUDE[1] - LATITUDE[0]
    latitude = torch.cat([LATITUDE, LATITUDE[-1:] + step])[:, None]
    wind = torch.stack([-LONGITUDE.sin().expand(7, 8), -latitude.sin() * LONGITUDE.cos()])
    padded = Sphere().pad(wind[:, :-1], (0, 0, 0, 1), ([False, False], [True, True]))
    torch.testing.assert_close(padded, wind)


@pytest.mark.parametrize("pole_is_first", [True, False])
@pytest.mark.parametrize("on_pole", [True, False])
def test_a_cap_is_the_sphere_at_its_pole_and_open_at_its_side(pole_is_first, on_pole):
    fields, odd = torch.randn(2, 5, 8), ([True, False], [True, False])
    ends = (on_pole, False) if pole_is_first else (False, on_pole)
    padded, sphere = (grid.pad(fields, 2, odd) for grid in (Cap(pole_is_first, on_pole), Sphere(ends)))
    pole, side = (slice(None, 7), slice(7, None)) if pole_is_first else (slice(2, None), slice(None, 2))
    assert torch.equal(padded[:, pole], sphere[:, pole])
    edge = fields[:, -1:] if pole_is_first else fields[:, :1]
    assert torch.equal(padded[:, side, 2:-2], edge.expand(-1, 2, -1))
    assert Cap(pole_is_first, on_pole).pad(fields, (0, 0, 7, 7)).shape == (2, 19, 8)
    windows = Cap(pole_is_first).windows((8, 8), (4, 4), shifted=True)[0]
    opposite = [windows[row, 0] == windows[row, 4] for row in (0, -1)]
    assert opposite == [pole_is_first, not pole_is_first]


def test_widths_of_each_side():
    fields = torch.arange(12.0).view(1, 3, 4)
    assert Sphere().pad(fields, (1, 2, 0, 1)).shape == (1, 4, 7)
    assert torch.equal(Sphere().pad(fields, 0), fields)


def test_samples_of_a_batch_have_planes_of_their_own():
    fields = torch.randn(3, 2, 4, 5)
    kinds = [Plane((side, side), (Side.WALL, Side.OPEN)) for side in (Side.PERIODIC, Side.OPEN)]
    padded = Planes((kinds[0], kinds[1], kinds[0])).pad(fields, 2)
    for sample, kind in enumerate((kinds[0], kinds[1], kinds[0])):
        assert torch.equal(padded[sample], kind.pad(fields[sample], 2))


@pytest.mark.parametrize("topology", [Sphere(), Plane((Side.PERIODIC,) * 2, (Side.WALL,) * 2)])
def test_turning_around_the_axis_commutes(topology):
    fields = torch.randn(2, 3, 4, 8)
    turned = topology.pad(fields.roll(3, -1), (0, 0, 1, 1))
    assert torch.equal(turned, topology.pad(fields, (0, 0, 1, 1)).roll(3, -1))
