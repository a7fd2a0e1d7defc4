"""Windows of tokens against what the topology says of neighbors, and attention within them against a mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciml.nn.attention import SelfAttention
from sciml.nn.position import Rotary
from sciml.nn.topology import Plane, Planes, Side, Sphere
from sciml.nn.window import windows_on

PERIODIC, WALL, OPEN = ((side, side) for side in (Side.PERIODIC, Side.WALL, Side.OPEN))
CHANNEL = Plane(PERIODIC, WALL)
BOX = Plane((Side.OPEN, Side.WALL), PERIODIC)


def together(topology, shape, window):
    """Which tokens share a shifted window: the topology continues their numbers, and windows are cut from those."""
    (rows, columns), (h, w) = shape, window
    numbers = torch.arange(rows * columns).double().view(1, rows, columns)
    padded = topology.pad(numbers, (w // 2, w // 2, h // 2, h // 2))[0].long()
    shared = np.zeros((rows * columns, rows * columns), bool)
    for row in range(0, len(padded), h):
        for column in range(0, padded.shape[1], w):
            inside = padded[row : row + h, column : column + w].flatten().numpy()
            shared[np.ix_(inside, inside)] = True
    return shared


def mask_of(numbers):
    flat = numbers.reshape(-1)
    return flat[:, None] == flat[None]


@pytest.mark.parametrize("topology", [Sphere(), CHANNEL, BOX, Plane(PERIODIC, PERIODIC), Plane(WALL, OPEN)])
@pytest.mark.parametrize(("shape", "window"), [((8, 16), (4, 4)), ((6, 12), (2, 6)), ((8, 8), (2, 2))])
def test_shifted_windows_hold_what_the_topology_calls_neighbors(topology, shape, window):
    found = mask_of(topology.windows(shape, window, shifted=True))
    np.testing.assert_array_equal(found, together(topology, shape, window))


@pytest.mark.parametrize("topology", [Sphere((True, True)), CHANNEL, BOX])
@pytest.mark.parametrize("shape", [(7, 10), (5, 9), (3, 16), (1, 1), (181, 360)])
@pytest.mark.parametrize("window", [(4, 4), (2, 3), (1, 1), (12, 20)])
def test_any_grid_is_cut_into_windows_that_are_nearly_equal(topology, shape, window):
    for shifted in (False, True):
        numbers = topology.windows(shape, window, shifted=shifted)[0]
        assert numbers.shape == shape
        sizes = np.unique(numbers, return_counts=True)[1]
        least = (shape[0] // -(-shape[0] // window[0])) * (shape[1] // -(-shape[1] // window[1]))
        assert sizes.min() >= (1 if shifted else least)
        assert sizes.max() <= (window[0] + 1) * window[1]  # half windows of odd height meet at a pole
    for partition in windows_on(topology, shape, window):
        assert sum(number * size for number, size in partition.sizes) == shape[0] * shape[1]
        assert torch.equal(partition.order[partition.inverse], torch.arange(shape[0] * shape[1]))


def test_no_window_crosses_a_wall_and_both_poles_are_crossed():
    numbers = CHANNEL.windows((4, 8), (2, 4), shifted=True)[0]
    assert numbers[0, 2] == numbers[0, 5] != numbers[1, 2]
    assert numbers[0, 0] == numbers[0, 7] != numbers[3, 0]  # around, and not through the walls
    sphere = Sphere().windows((4, 8), (2, 4), shifted=True)[0]
    for row in (0, 3):
        assert sphere[row, 3] == sphere[row, 7]  # half a turn apart
    alone = Sphere().windows((4, 12), (2, 4), shifted=True)[0]  # no window lies opposite to one of three
    assert alone[0, 3] != alone[0, 9]


@pytest.mark.parametrize("kv_heads", [None, 1])
@pytest.mark.parametrize(
    ("topology", "shape", "window"),
    [
        (Sphere(), (6, 8), (3, 4)),
        (Sphere((True, False)), (7, 10), (3, 4)),
        (CHANNEL, (5, 9), (2, 4)),
        (Planes((CHANNEL, BOX)), (5, 6), (2, 4)),
        (Planes((BOX, BOX)), (5, 6), (2, 4)),
    ],
)
@pytest.mark.parametrize("pattern", ["window", "shifted"])
def test_attention_within_windows_is_attention_with_a_mask(topology, shape, window, pattern, kv_heads):
    torch.manual_seed(0)
    tokens = shape[0] * shape[1]
    attention = SelfAttention(12, 3, "rms", num_kv_heads=kv_heads).double()
    x = torch.randn(2, tokens, 12, dtype=torch.float64, requires_grad=True)
    angle = torch.randn(tokens, 1, 2, dtype=torch.float64)
    rotary = Rotary(angle.cos(), angle.sin())
    found = attention(x, rotary, None, windows_on(topology, shape, window).of(pattern))

    numbers = torch.from_numpy(topology.windows(shape, window, shifted=pattern == "shifted")).flatten(1)
    allowed = numbers[:, :, None] == numbers[:, None]
    q, k, v = (w(x).unflatten(-1, (-1, 4)) for w in (attention.wq, attention.wk, attention.wv))
    q, k = attention.query_norm(q), attention.key_norm(k)
    turned = [
        torch.view_as_real(torch.complex(*y.chunk(2, -1)) * torch.exp(1j * angle)).transpose(-1, -2).flatten(-2)
        for y in (q, k)
    ]
    q, k, v = (y.expand(-1, -1, 3, -1) for y in (*turned, v))
    scores = torch.einsum("bqhc,bkhc->bhqk", q, k) / 2
    weights = scores.masked_fill(~allowed[:, None], -torch.inf).softmax(-1)
    expected = attention.wo(torch.einsum("bhqk,bkhc->bqhc", weights, v).flatten(-2))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    along = torch.randn_like(expected)
    parameters = [x, *attention.parameters()]
    for a, b in zip(
        torch.autograd.grad((found * along).sum(), parameters),
        torch.autograd.grad((expected * along).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_tokens_can_be_put_in_order_and_back_with_any_number_of_gradients():
    partition = windows_on(Sphere(), (4, 6), (2, 4)).shifted
    x = torch.randn(2, 24, 1, 2, dtype=torch.float64, requires_grad=True)
    parts = partition.split(x)
    assert torch.equal(partition.join(parts, 2), x)

    def squares(x):
        return partition.join([part**3 for part in partition.split(x)], 2)

    assert torch.autograd.gradgradcheck(squares, (x,))
