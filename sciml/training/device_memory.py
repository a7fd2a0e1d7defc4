"""Measures the memory of a rank's device, for logs."""

from __future__ import annotations

from typing import Any

import psutil
import torch

from sciml.core.process_memory import peak_memory

GB = 1e9


def memory_in_use(device: torch.device) -> dict[str, float]:
    """Returns the memory that this rank has now and had at most, in GB: of its accelerator's tensors, or of its process
    where it computes on the CPU.

    Returns:
        ``memory_gb`` and ``memory_peak_gb``; empty on devices that do not tell.
    """
    if device.type == "cpu":
        process = psutil.Process()
        now = process.memory_info().rss
        return {"memory_gb": now / GB, "memory_peak_gb": max(peak_memory(process) or 0, now) / GB}
    kind: Any = getattr(torch, device.type, None)
    if not hasattr(kind, "max_memory_allocated"):
        return {}
    return {
        "memory_gb": kind.memory_allocated(device) / GB,
        "memory_peak_gb": kind.max_memory_allocated(device) / GB,
    }
