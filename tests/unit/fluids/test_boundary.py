"""Typed boundary conditions and their ghost cells."""

from __future__ import annotations

import pytest
import torch

from domains.fluids.data.boundary import Boundary
from sciml.core.errors import ConfigError
from sciml.nn.topology import Side

EVEN = ((False, False), (False, False))
WINDS = ((True, False), (False, True))


def row(boundary: Boundary, width, odd=EVEN) -> list[float]:
    """The first channel of 1, 2, 3 along x."""
    fields = torch.tensor([1.0, 2.0, 3.0]).expand(2, 1, 3)
    return boundary.pad(fields, width, odd)[0, 0].tolist()


class TestBoundary:
    def test_names_and_their_synonyms(self):
        boundary = Boundary.of(["inflow", "outflow"], "wall")
        assert boundary == Boundary((Side.OPEN, Side.OPEN), (Side.WALL, Side.WALL))
        assert Boundary.of(**boundary.names) == boundary

    @pytest.mark.parametrize(
        ("x", "match"), [("priodic", "'periodic'"), (("wall", "wal"), "'wall'"), (("wall",), "two sides")]
    )
    def test_an_unknown_one_is_refused(self, x, match):
        with pytest.raises(ConfigError, match=match) as caught:
            Boundary.of(x, "wall")
        assert caught.value.key == "boundary.x"

    def test_an_axis_repeats_at_both_sides_or_not_at_all(self):
        with pytest.raises(ConfigError, match="both sides"):
            Boundary.of("wall", ("periodic", "open"))


class TestPad:
    def test_what_repeats_is_continued(self):
        assert row(Boundary.of("periodic", "wall"), (2, 1, 0, 0)) == [2, 3, 1, 2, 3, 1]

    def test_an_open_side_repeats_its_edge(self):
        assert row(Boundary.of("open", "wall"), (2, 1, 0, 0)) == [1, 1, 1, 2, 3, 3]

    def test_a_wall_is_a_mirror(self):
        assert row(Boundary.of("wall", "wall"), (2, 2, 0, 0)) == [2, 1, 1, 2, 3, 3, 2]

    def test_the_wind_across_a_wall_changes_its_sign(self):
        boundary = Boundary.of(("wall", "open"), "wall")
        assert row(boundary, (2, 1, 0, 0), WINDS) == [-2, -1, 1, 2, 3, 3]
        fields = torch.arange(1.0, 13).reshape(2, 3, 2)
        padded = boundary.pad(fields, 1, WINDS)
        assert torch.equal(padded[0, 0], padded[0, 1])  # the wind along the floor is a plain mirror image
        assert torch.equal(padded[1, 0], -padded[1, 1])
        assert torch.equal(padded[1, 1:-1, 1:-1], fields[1])

    @pytest.mark.parametrize(
        ("x", "left", "wanted"),
        [
            ("periodic", 5, [2, 3, 1, 2, 3, 1, 2, 3]),
            ("wall", 5, [2, 3, -3, -2, -1, 1, 2, 3]),  # the farthest are images in both walls
        ],
    )
    def test_padding_may_be_wider_than_the_domain(self, x, left, wanted):
        assert row(Boundary.of(x, "wall"), (left, 0, 0, 0), WINDS) == wanted

    def test_members_and_times_come_first(self):
        fields = torch.randn(5, 4, 2, 3, 6, generator=torch.Generator().manual_seed(0))
        boundary = Boundary.of("periodic", "wall")
        padded = boundary.pad(fields, (1, 2, 3, 0), WINDS)
        assert padded.shape == (5, 4, 2, 6, 9)
        assert torch.equal(padded[3, 2], boundary.pad(fields[3, 2], (1, 2, 3, 0), WINDS))

    def test_gradients_reach_the_cells_the_ghosts_come_from(self):
        fields = torch.ones(2, 3, 3, requires_grad=True)
        Boundary.of("periodic", "wall").pad(fields, 1, EVEN).sum().backward()
        assert fields.grad[0].tolist() == [[4, 2, 4], [2, 1, 2], [4, 2, 4]]
