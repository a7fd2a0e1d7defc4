"""Reads are counted, and engine and trainer wait for no others."""

import pytest
import torch

from sciml.testing.host_reads import host_reads
from tests.unit.training.test_engine import Regression, data, make_engine


def test_every_way_to_read_a_value_is_counted():
    x = torch.arange(4.0)
    ways = [
        lambda: x.sum().item(),
        lambda: float(x.sum()),
        lambda: bool((x > 1).any()),
        lambda: x.tolist(),
        lambda: x[x > 1],
        lambda: x.nonzero(),
        lambda: x.unique(),
    ]
    for way in ways:
        with host_reads() as reads:
            way()
        assert len(reads) == 1
    with host_reads() as reads:
        x[torch.tensor([0, 2])] += x.sum().clamp(max=1)
    assert not reads


def test_reads_of_a_backward_pass_are_counted():
    class Reads(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * gradient.sum().item()

    x = torch.ones(3, requires_grad=True)
    with host_reads() as reads:
        Reads.apply(x).sum().backward()
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("name", "precision", "each_step", "reading"),
    [
        ("adamw", "fp32", 0, 1),
        ("adamw", "bf16", 0, 1),
        ("sgd", "fp32", 3, 0),  # the loss, the norm, and both as they are told
        ("adamw", "fp16", 3, 0),  # whose loss scale depends on the norm
    ],
)
def test_reads_of_a_step(name, precision, each_step, reading):
    engine = make_engine(name, precision=precision)
    for _ in range(3):
        with host_reads() as reads:
            result = engine.launch_step(Regression(), [data()], lr=1e-3)
        assert len(reads) == each_step
    with host_reads() as reads:
        result()
    assert len(reads) == reading
