"""How often a training should write checkpoints, from the time that one takes and how often nodes fail."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sciml.planning.cluster import GB, ClusterConfig


@dataclass(frozen=True)
class Cadence:
    """Advises when to write checkpoints.

    Attributes:
        failure_s: mean seconds between failures of any node of the training.
        write_s: seconds to write a checkpoint.
        interval_s: seconds between checkpoints that lose least.
        lost: share of the time that is then lost to writing, and to repeating what a failure undid.
    """

    failure_s: float
    write_s: float
    interval_s: float
    lost: float

    @classmethod
    def of(cls, cluster: ClusterConfig, devices: int, state_bytes: float) -> Cadence | None:
        """Returns the advice for a training; None where the cluster states no failures or no storage.

        Source: Young (1974), https://doi.org/10.1145/361147.361115; Daly (2006),
        https://doi.org/10.1016/j.future.2004.11.016, equation 37.

        Args:
            state_bytes: of a checkpoint, over all devices.
        """
        if cluster.node_mtbf_hours is None or cluster.storage_gb_per_s is None:
            return None
        nodes = math.ceil(devices / cluster.devices_per_node)
        failure = cluster.node_mtbf_hours * 3600 / nodes
        write = state_bytes / (cluster.storage_gb_per_s * GB)
        if write >= 2 * failure:
            interval = failure
        else:
            ratio = math.sqrt(write / (2 * failure))
            interval = math.sqrt(2 * write * failure) * (1 + ratio / 3 + ratio**2 / 9) - write
        lost = write / (interval + write) + (interval + write) / (2 * failure)
        return cls(failure, write, interval, min(1.0, lost))
