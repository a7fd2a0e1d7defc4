"""What is known of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, NonNegative, Positive
from sciml.training.config import Precision

NEEDED = {
    "memory_gb": "80",
    "memory_gb_per_s": "3350",
    "peak_tflops": "{fp32: 67, bf16: 989}",
    "links": "{node: {devices: 8, gb_per_s: 450}, network: {devices: null, gb_per_s: 50}}",
}
"""What a plan cannot do without, with examples."""
GB = 1e9


@dataclass(frozen=True)
class Link:
    """A level of the network.

    Attributes:
        devices: how many neighbors in rank it joins; None joins all nodes.
        gb_per_s: what one device sends, in one direction, while its neighbors do the same.
        latency_us: of one message.
    """

    devices: AtLeastOne | None
    gb_per_s: Positive[float]
    latency_us: NonNegative[float] = 0.0


@dataclass(frozen=True)
class ClusterConfig:
    """Facts of a cluster, from ``conf/cluster``. A launch needs the first few, a plan those of a device and the links.

    Attributes:
        devices_per_node: accelerators of a node, or processes where there are none.
        num_nodes: how many there are; None where that is not known.
        cores_per_device: cores that Slurm gives to each device; None leaves it to Slurm.
        device: ``accelerator`` or ``cpu``; torch's autocast keeps other things in float32 on each.
        memory_gb: of a device, 1e9 bytes.
        memory_gb_per_s: how fast a device reads it.
        kernel_us: between the starts of two kernels, at the least.
        shard_us: of gathering or scattering what a module shares with other ranks, besides the message.
        update_gb_per_s: how fast an optimizer reads and writes; None counts kernels at the memory's speed.
        shard_update_us: of updating a parameter of which ranks hold shards, besides; None counts kernels.
        peak_tflops: of a device's matrix units, dense, by precision; one that is missing cannot be used.
        links: levels of the network by name, from the nearest neighbors to all nodes.
        power_w: of a device at work, with its share of the node.
        price_per_hour: of a device, in any currency; None tells no cost.
        measured: whether speeds are those that were reached there, and not what makers state.
    """

    name: str
    devices_per_node: AtLeastOne
    num_nodes: AtLeastOne | None = None
    cores_per_device: AtLeastOne | None = None
    device: Literal["accelerator", "cpu"] = "accelerator"
    memory_gb: Positive[float] | None = None
    memory_gb_per_s: Positive[float] | None = None
    kernel_us: Positive[float] = 5.0
    shard_us: NonNegative[float] = 0.0
    update_gb_per_s: Positive[float] | None = None
    shard_update_us: NonNegative[float] | None = None
    peak_tflops: dict[Precision, Positive[float]] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    power_w: Positive[float] | None = None
    price_per_hour: NonNegative[float] | None = None
    measured: bool = False

    def __post_init__(self) -> None:
        reach = [link.devices for link in self.links.values()]
        if not reach:
            return
        if reach[-1] is not None or None in reach[:-1]:
            raise ConfigError(
                "the last level, and no other, joins all nodes", key="cluster.links", hint="devices: null"
            )
        inside = [devices for devices in reach if devices is not None]
        if inside != sorted(set(inside)):
            raise ConfigError(
                f"levels that join {', '.join(map(str, inside))} devices do not grow",
                key="cluster.links",
                hint="write the nearest neighbors first",
            )

    def check_for_plans(self) -> None:
        """Refuses a cluster of which too little is known for a plan.

        Raises:
            ConfigError: naming what is missing.
        """
        for name, example in NEEDED.items():
            if not getattr(self, name):
                raise ConfigError(
                    f"is not known of cluster={self.name}",
                    key=f"cluster.{name}",
                    hint=f"write it, e.g. 'cluster.{name}={example}', or take another cluster",
                )

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known that a plan needs."""
        return not any(getattr(self, name) for name in NEEDED)

    @property
    def memory(self) -> float:
        """Bytes of a device."""
        assert self.memory_gb is not None
        return self.memory_gb * GB

    def level(self, span: int) -> str:
        """The name of the first level that joins so many neighbors in rank."""
        return next(name for name, link in self.links.items() if link.devices is None or span <= link.devices)
