"""What is known of a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from sciml.core.config import positive


@dataclass(frozen=True)
class ClusterConfig:
    """Facts of a cluster, from ``conf/cluster``.

    Attributes:
        num_nodes: how many there are; None where that is not known.
        devices_per_node: accelerators of a node, or processes where there are none.
        cores_per_device: cores that Slurm gives to each device; None leaves it to Slurm.
    """

    name: str
    devices_per_node: int
    num_nodes: int | None = None
    cores_per_device: int | None = None

    def __post_init__(self) -> None:
        for name in ("devices_per_node", "num_nodes", "cores_per_device"):
            if getattr(self, name) is not None:
                positive(getattr(self, name), f"cluster.{name}", example=8)
