"""A state of ERA5 at 0.25 degrees goes through a model whose tokens attend within windows, forward and backward."""

from __future__ import annotations

import math

import pytest
import torch

from domains.climate.model.field_model import ClimateFieldModel
from sciml.distributed.mesh import Mesh
from sciml.models.uvit import UViTConfig
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from sciml.planning.op_meter import Meter
from sciml.training.engine import NativeEngine
from tests.distributed.cases import OPTIMIZERS, FieldTask, Samples

LATITUDE = tuple(90 - 0.25 * row for row in range(721))
LONGITUDE = tuple(0.25 * column for column in range(1440))
CHANNELS = [f"{name}{level}" for name in "ztuvq" for level in range(100, 1400, 100)] + [
    "t2m", "u10", "v10", "msl", "sp", "tcwv", "d2m", "skt",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_step_of_training_at_a_quarter_of_a_degree():
    """65,160 tokens, for which global attention would take 2.2 TFLOP forward, and windows take 5 GFLOP."""
    config = UViTConfig(
        embed_dim=64, depth=2, num_heads=2, mlp_ratio=2.0, patch_size=4, square=4, conv_width=16, condition_dim=16,
        rotary_axes=("longitude", "latitude"), attention="window", window=(12, 12),
    )  # fmt: skip

    def build() -> ClimateFieldModel:
        return ClimateFieldModel(config, CHANNELS, latitude=LATITUDE, longitude=LONGITUDE)

    mesh = Mesh.alone()
    engine = NativeEngine(parallelize(build, mesh, ParallelConfig(dp=1), seed=0), OPTIMIZERS["adamw"])
    inputs = torch.randn(1, len(CHANNELS), 721, 1440, generator=torch.Generator().manual_seed(0))
    batch = [Samples(inputs, inputs.roll(4, 3))]
    with Meter() as meter:
        first = engine.train_step(FieldTask(), batch, 1e-3)
    second = engine.train_step(FieldTask(), batch, 1e-3)
    assert len(CHANNELS) == 73
    assert math.isfinite(first.grad_norm)
    assert second.loss < first.loss
    tokens, heads_channels = 181 * 360, 64
    assert meter.attention < 3.5 * 2 * 4 * tokens * 13 * 12 * heads_channels
