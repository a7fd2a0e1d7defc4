"""Small flows and models of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from domains.fluids.amr.config import AMRConfig
from domains.fluids.amr.indicator_inputs import IndicatorInputs
from domains.fluids.amr.transformer import AMRViT
from domains.fluids.data.boundary import Boundary

CHANNELS = ("dens", "uwnd", "wwnd", "theta")
CHANNEL_FLOW = Boundary.of("periodic", "wall")
BOX = Boundary.of("wall", "wall")
SMALL: dict[str, Any] = {
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "patch_size": 8,
    "ratios": (2, 2),
    "budgets": (0.25, 0.5),
    "condition_dim": 8,
    "position_harmonics": 3,
    "rotary_max_harmonic": 4,
    "head_depth": 1,
}


def config(**changes: Any) -> AMRConfig:
    return AMRConfig(**{**SMALL, **changes})


def flow(batch: int = 2, rows: int = 16, columns: int = 32, seed: int = 0, channels: int = 4) -> Tensor:
    """Smooth fields with a rough spot in each sample, float64."""
    generator = torch.Generator().manual_seed(seed)
    fields = torch.randn(batch, channels, rows, columns, generator=generator, dtype=torch.float64)
    smooth = (fields + fields.roll(1, -1) + fields.roll(1, -2) + fields.roll((1, 1), (-1, -2))) / 4
    place = torch.arange(columns) / columns
    return smooth + fields * torch.exp(-((place - 0.4) ** 2) * 40)


def evidence(fields: Tensor, boundary: Boundary = CHANNEL_FLOW, **others: Any) -> IndicatorInputs:
    return IndicatorInputs(fields, CHANNELS[: fields.shape[1]], (boundary,) * len(fields), **others)


def filled(module: nn.Module, std: float = 0.3) -> nn.Module:
    """Leaves no parameter at zero; each is drawn from its name."""
    for name, parameter in module.named_parameters():
        if not parameter.any():
            generator = torch.Generator().manual_seed(len(name))
            parameter.data = std * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
    return module


def model(*, trained: bool = True, channels: tuple[str, ...] = CHANNELS, **changes: Any) -> AMRViT:
    """A model in float64; ``trained`` fills in what starts at zero."""
    torch.manual_seed(0)
    made = AMRViT(config(**changes), channels).double().eval()
    if trained:
        filled(made)
    return made


def lead(batch: int = 2) -> Tensor:
    return torch.tensor([20.0, 50.0, 35.0])[:batch]
