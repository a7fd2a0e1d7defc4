"""The cluster that a training finds itself on: known by its devices' name, measured before, or measured now."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sciml.core.config import build
from sciml.core.devices import device_name
from sciml.core.installation import CONF, OWN_CONF
from sciml.distributed.world import pick_device
from sciml.planning.cluster import ClusterConfig, Link
from sciml.planning.machine import THIS_MACHINE, count_of, kind_of, measure_machine
from sciml.training.config import Precision

TERA = 1e12
ASSUMED_NETWORK_GB_PER_S, ASSUMED_NETWORK_US = 12.5, 15.0
"""Stands for a network of which nothing is known: a port of 100 Gb/s for each process."""


def cluster_here(devices: int, device: str = "auto", num_threads: int = 1, local: int | None = None) -> ClusterConfig:
    """Returns the cluster that a training runs on: known by its devices' name, measured before, or measured now.

    Only the own node is measured, by as many processes as it has of the training. How nodes talk to one another is then
    assumed, which is said.

    Args:
        devices: processes that will be at work.
        device: as ``trainer.device``.
        local: those of them on this node; all by default.
    """
    kind, local = pick_device(device), local or devices
    if kind != "cpu":
        known = cluster_of(device_name(kind), os.environ, local)
        if known is not None:
            return known if devices <= local else with_nodes_of(known, local)
    kept = _kept(kind)
    if kept is not None and kept.devices_per_node >= local:
        return over_nodes(kept, devices, local)
    message = f"measuring this machine with {count_of(local)}; scripts/doctor.py --measure keeps the result"
    print(message, file=sys.stderr, flush=True)
    return over_nodes(measure_machine(local, device, num_threads), devices, local)


@dataclass(frozen=True)
class Peak:
    """Holds what a device of this process computes at most.

    Attributes:
        flops_per_s: of dense matrix products in a precision.
        source: where the number comes from, for people.
    """

    flops_per_s: float
    source: str


def peak_here(kind: str, precision: Precision, num_threads: int) -> Peak | None:
    """Returns the peak of a device of this process, as ``conf/cluster`` states it or as this machine was measured.

    A process on CPUs has as many times what a process was measured to have as it has threads. Nothing is measured now.

    Args:
        kind: type of the device, such as ``cuda``.
        num_threads: on which this process computes.

    Returns:
        None of a device of which nothing is known.
    """
    known = cluster_of(device_name(kind), os.environ) if kind != "cpu" else None
    if known is not None:
        peak = known.peak_tflops.get(precision)
        return None if peak is None else Peak(peak * TERA, f"cluster={known.name} states")
    kept = _kept(kind)
    peak = None if kept is None else kept.peak_tflops.get(precision)
    if kept is None or peak is None:
        return None
    if kind == "cpu":
        if kept.cores_per_device is None:
            return None
        peak *= num_threads / kept.cores_per_device
    return Peak(peak * TERA, "products were measured to reach here")


def _kept(kind: str) -> ClusterConfig | None:
    """Returns what was measured of this machine before; None where that is nothing, or of another kind of device."""
    path = OWN_CONF / "cluster" / f"{THIS_MACHINE}.yaml"
    kept = read_cluster(path) if path.exists() else None
    return kept if kept is not None and kept.device == kind_of(kind) else None


def cluster_of(device: str, environ: Mapping[str, str], local: int = 1) -> ClusterConfig | None:
    """Returns the cluster that a device is known to stand in; None for a device of which nothing is known.

    Of several with the same devices it is the one that Slurm or the modules name, else one whose nodes have as many.

    Args:
        device: its name, as drivers say it, such as ``NVIDIA A100-SXM4-80GB``.
        local: processes on this node.
    """
    words = set(re.split(r"[^A-Z0-9]+", device.upper()))
    files = (file for folder in (CONF, OWN_CONF) for file in sorted((folder / "cluster").glob("*.yaml")))
    clusters = [read_cluster(file) for file in files if file.stem != THIS_MACHINE]
    known = [c for c in clusters if any(set(name.upper().split()) <= words for name in c.device_names)]
    site = " ".join(environ.get(name, "") for name in ("SLURM_CLUSTER_NAME", "LMOD_SYSTEM_NAME")).lower()
    return min(
        known,
        key=lambda c: (c.name not in site, c.devices_per_node < local, c.devices_per_node != local),
        default=None,
    )


def with_nodes_of(cluster: ClusterConfig, local: int) -> ClusterConfig:
    """Returns a cluster with as many devices a node as a job has there; links inside of a node join no others."""
    if local == cluster.devices_per_node:
        return cluster
    network, outside = next((name, link) for name, link in cluster.links.items() if link.devices is None)
    inside = {name: link for name, link in cluster.links.items() if link.devices is not None}
    links = {name: link for name, link in inside.items() if link.devices is not None and link.devices < local}
    if local > 1 and inside:
        # What joins all devices of a larger node joins those of this one; of a smaller one, whatever reaches farthest.
        name = next((name for name in inside if name not in links), list(inside)[-1])
        links[name] = replace(inside[name], devices=local)
    return replace(cluster, devices_per_node=local, num_nodes=None, links={**links, network: outside})


def over_nodes(node: ClusterConfig, devices: int, local: int) -> ClusterConfig:
    """Returns a measured node as a cluster of as many as a training needs, whose network is assumed."""
    if devices <= local:
        return node
    inner = next(iter(node.links.values()))
    rate = min(inner.gb_per_s, ASSUMED_NETWORK_GB_PER_S)
    print(
        f"no cluster is known by its devices' name: the network between nodes is assumed to have {rate:.3g} GB/s a "
        f"process; cluster.links in a file of conf/cluster says it better",
        file=sys.stderr,
        flush=True,
    )
    links = {"node": replace(inner, devices=local), "network": Link(None, rate, ASSUMED_NETWORK_US)}
    if local == 1:
        del links["node"]
    return replace(node, devices_per_node=local, num_nodes=None, links=links)


def read_cluster(path: Path) -> ClusterConfig:
    """Reads a cluster from a file."""
    from omegaconf import OmegaConf

    return build(ClusterConfig, OmegaConf.to_container(OmegaConf.load(path)), prefix="cluster")  # type: ignore[arg-type]
