"""Facts of a cluster: devices, memory, links, and the shares of their peaks that trainings reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, NonNegative, Positive, PositiveFraction
from sciml.training.config import Precision

NEEDED = {
    "memory_gb": "80",
    "memory_gb_per_s": "3350",
    "peak_tflops": "{fp32: 67, bf16: 989}",
    "links": "{node: {devices: 8, gb_per_s: 450}, network: {devices: null, gb_per_s: 50}}",
}
"""Facts that a plan cannot do without, with examples."""
GB, MICROSECONDS = 1e9, 1e-6


class Shares(NamedTuple):
    """Holds the shares of a device's peaks that are reached; see :class:`Efficiency`."""

    compute: float
    attention: float
    link: float
    memory: float


GENERIC = Shares(compute=0.7, attention=0.25, link=0.6, memory=0.85)
"""Serves for a device of which nothing is known."""


@dataclass(frozen=True)
class Efficiency:
    """Holds the shares of a device's peaks that trainings reach.

    They belong to the device; ``conf/cluster`` says for each what they were fitted to. What is None is taken from the
    cluster, and what that does not know from :data:`GENERIC`.

    Attributes:
        compute: share of a device's peak that large matrix products reach; smaller ones also wait for their operands.
        attention: the same of attention.
        link: share of a link's bandwidth that messages reach.
        memory: share of a memory's bandwidth that all other kernels reach.
    """

    compute: PositiveFraction | None = None
    attention: PositiveFraction | None = None
    link: PositiveFraction | None = None
    memory: PositiveFraction | None = None

    def on(self, cluster: ClusterConfig) -> Shares:
        """Fills in what is not given."""
        own = Shares(1.0, 1.0, 1.0, 1.0) if cluster.measured else GENERIC
        known = [[getattr(one, name) for one in (self, cluster.efficiency)] for name in Shares._fields]
        return Shares(*(next((v for v in given if v is not None), own[n]) for n, given in enumerate(known)))


@dataclass(frozen=True)
class Link:
    """Describes a level of the network.

    Attributes:
        devices: number of neighboring ranks that it joins; None joins all nodes.
        gb_per_s: bandwidth of one device, in one direction, while its neighbors send, too.
        latency_us: of one message.
    """

    devices: AtLeastOne | None
    gb_per_s: Positive[float]
    latency_us: NonNegative[float] = 0.0


@dataclass(frozen=True)
class ClusterConfig:
    """Describes a cluster, from ``conf/cluster``. A launch needs the first few keys, a plan those of a device and the
    links.

    Attributes:
        devices_per_node: accelerators of a node, or processes where there are none.
        num_nodes: number of nodes; None where it is not known.
        cores_per_device: cores that Slurm gives to each device; None leaves it to Slurm.
        device: ``accelerator`` or ``cpu``; torch's autocast keeps other things in float32 on each.
        memory_gb: of a device, 1e9 bytes.
        memory_gb_per_s: memory bandwidth of a device.
        kernel_us: least time between the starts of two kernels.
        shard_us: time to gather or scatter a sharded module, besides the message.
        update_gb_per_s: bandwidth of an optimizer's reads and writes; None counts kernels at the memory's bandwidth.
        shard_update_us: time to update a sharded parameter, besides; None counts kernels.
        peak_tflops: of a device's matrix units, dense, by precision; a missing precision cannot be used.
        links: levels of the network by name, from the nearest neighbors to all nodes.
        power_w: of a device at work, with its share of the node.
        price_per_hour: of a device, in any currency; None reports no cost.
        node_mtbf_hours: mean time between failures of a node; None gives no advice on checkpoints.
        storage_gb_per_s: at which all nodes together write a checkpoint; None gives none, either.
        measured: whether speeds were measured there, and are not those that makers state.
        efficiency: shares of these peaks that trainings reach.
        device_names: parts of the names by which drivers know a device, such as ``H100 80GB``; each word counts.
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
    node_mtbf_hours: Positive[float] | None = None
    storage_gb_per_s: Positive[float] | None = None
    measured: bool = False
    efficiency: Efficiency = field(default_factory=Efficiency)
    device_names: tuple[str, ...] = ()

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
        """Refuses a cluster without the facts that a plan needs.

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
        """Says whether the cluster lacks all numbers that a plan needs."""
        return not any(getattr(self, name) for name in NEEDED)

    @property
    def memory(self) -> float:
        """Returns the bytes of a device."""
        assert self.memory_gb is not None
        return self.memory_gb * GB

    def level(self, span: int) -> str:
        """Returns the name of the first level that joins so many neighboring ranks."""
        return next(name for name, link in self.links.items() if link.devices is None or span <= link.devices)
