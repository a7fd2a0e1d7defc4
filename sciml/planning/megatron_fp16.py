"""The memory of large language models as the talk counts it: 20 bytes a parameter, and no activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sciml.planning.cluster import GB
from sciml.planning.facts import Accounting

TALK = Accounting(weights=6, master=4, gradients=4, moments=8, other=2, wire=2)
"""Weights in half precision and float32, gradients in float32, two moments, and 2 bytes that the talk names only in the
sum. Source: the table "Resources of LLM-like models" of the talk that this suite re-creates (P. Balaprakash, ORNL).
"""


@dataclass(frozen=True)
class TalkMemory:
    """Bytes of a whole model by the talk's accounting, which knows neither activations nor buffers."""

    weights: float
    gradients: float
    optimizer: float
    total: float

    @classmethod
    def of(cls, parameters: float) -> TalkMemory:
        a = TALK
        return cls(parameters * a.weights, parameters * a.gradients, parameters * a.moments, parameters * a.total)

    def least_devices(self, memory_gb: float = 64, devices_per_node: int = 8) -> int:
        """Devices that hold it all, sharded evenly, and at least a node.

        The talk names 8, 55 and 313 for 22 B, 175 B and 1 T parameters on devices of 64 GB. The last two are the bytes
        over 64e9; of the first these would be 6.9, so the 8 is taken to be the node, the least that is given out.
        """
        return max(devices_per_node, math.ceil(self.total / (memory_gb * GB)))
