"""Says what kinds of devices can do, and what they are called."""

from __future__ import annotations

from typing import Any

import torch


def widest_float(device: torch.device | str) -> torch.dtype:
    """Returns the widest type that a device computes in: Apple's have no float64, and of Intel's only some."""
    device = torch.device(device)
    if device.type == "xpu":
        return torch.float64 if torch.xpu.get_device_properties(device).has_fp64 else torch.float32
    return torch.float32 if device.type == "mps" else torch.float64


def device_name(kind: str, index: int | None = None) -> str:
    """Returns what drivers call a device; empty where they do not say."""
    module: Any = getattr(torch, kind, None)
    return str(module.get_device_name(index)) if hasattr(module, "get_device_name") else ""


def accelerator_names() -> list[str]:
    """Returns what drivers call the accelerators of this machine, or their kind where they do not say."""
    if not torch.accelerator.is_available():
        return []
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    kind = accelerator.type
    return [device_name(kind, index) or kind for index in range(torch.accelerator.device_count())]
