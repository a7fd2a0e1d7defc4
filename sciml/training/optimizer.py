"""Optimizer and learning-rate schedule, built from their configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sciml.training.config import OptimConfig


def build_optimizer(parameters: Sequence[nn.Parameter], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer of some parameters; only matrices are decayed."""
    parameters = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)


def learning_rate(config: OptimConfig, step: int, max_steps: int) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine down to ``min_lr_ratio``.

    A function of the step alone, so that a resumed run follows the same curve with nothing to restore.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps))
    floor = config.min_lr_ratio
    return config.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def moments_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """Optimizer tensors of a parameter; made as the optimizer's first step would make them."""
    moments = optimizer.state[parameter]
    if not moments and isinstance(optimizer, torch.optim.AdamW):
        zeros = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        moments.update(step=torch.tensor(0.0), exp_avg=zeros, exp_avg_sq=zeros.clone())
    elif not moments and isinstance(optimizer, torch.optim.SGD):
        moments.update(momentum_buffer=torch.zeros_like(parameter))
    return {key: value for key, value in moments.items() if isinstance(value, Tensor)}
