"""Chooses the precision of a training by what its device is fast in."""

from __future__ import annotations

from typing import Any

import torch

from sciml.training.config import Precision, PrecisionChoice

CPU_FEATURES = ("amx_bf16", "avx512_bf16", "bf16")
"""Names by which processors tell that they multiply in bf16: those of Intel and AMD, and of ARM."""


def chosen_precision(choice: PrecisionChoice, device: torch.device, *, is_differentiated_twice: bool) -> Precision:
    """Returns the precision that a choice means on a device.

    Args:
        is_differentiated_twice: whether the loss is made of gradients; their digits are needed, so ``auto`` is fp32.
    """
    if choice != "auto":
        return choice
    return "bf16" if not is_differentiated_twice and multiplies_bf16(device) else "fp32"


def use_tf32(choice: bool) -> None:
    """Sets whether CUDA devices round what they multiply in float32 to 10 bits, of all that they multiply alike."""
    torch.backends.cuda.matmul.allow_tf32 = choice
    torch.backends.cudnn.allow_tf32 = choice


def multiplies_bf16(device: torch.device) -> bool:
    """Says whether a device multiplies matrices of bf16 by instructions of its own."""
    if device.type == "cpu":
        capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.9 and 2.10 do not tell
        return any(capabilities.get(name) for name in CPU_FEATURES)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "xpu"
