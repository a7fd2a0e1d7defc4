"""Messages over nodes go around a ring for each rank that a node has, and clusters are known by their devices."""

from __future__ import annotations

import pytest

from sciml.parallel.config import ParallelConfig
from sciml.planning.cluster import Efficiency
from sciml.planning.cluster_here import cluster_here, cluster_of, over_nodes
from sciml.planning.links import Links
from sciml.planning.strategy import Strategy
from tests.unit.planning.models import cluster

BYTES = 1e9


def seconds(kind: str, strategy: Strategy, axes: str) -> float:
    nodes = cluster("h100")
    return Links(nodes, Efficiency(link=1.0).on(nodes)).cost(strategy, axes, kind, 0, BYTES)(1)


def strategy(**degrees: int) -> Strategy:
    return Strategy(ParallelConfig(**{"dp": 1, **degrees}))


@pytest.mark.parametrize(
    ("degrees", "rate"),
    [
        ({"shard": 8}, 450e9),  # inside a node
        ({"tp": 8, "shard": 4}, 50e9),  # one rank a node: its own port
        ({"tp": 4, "shard": 4}, 2 * 50e9),
        ({"shard": 64}, 8 * 50e9),
    ],
    ids=["node", "one", "two", "eight"],
)
def test_a_group_has_a_ring_for_each_of_its_ranks_in_a_node(degrees, rate):
    assert seconds("all_gather", strategy(**degrees), "shard") == pytest.approx(BYTES / rate)


def test_in_an_all_to_all_each_rank_sends_through_its_own_port():
    assert seconds("all_to_all", strategy(sp=16), "sp") == pytest.approx(8 / 15 * BYTES / 50e9)


@pytest.mark.parametrize(
    ("device", "local", "site", "name"),
    [
        ("NVIDIA H100 80GB HBM3", 8, "", "h100"),
        ("NVIDIA H100 80GB HBM3", 4, "", "jean_zay"),
        ("NVIDIA A100-SXM4-80GB", 8, "", "a100_80_dgx"),
        ("NVIDIA A100-SXM4-40GB", 4, "", "perlmutter"),
        ("AMD Instinct MI250X", 8, "", "frontier"),
        ("AMD Instinct MI250X", 8, "lumi", "lumi"),
        ("NVIDIA GH200 120GB", 4, "isambard", "isambard"),
        ("Tesla V100-SXM2-16GB", 6, "", "summit"),
    ],
)
def test_a_cluster_is_known_by_its_devices_and_its_site(device, local, site, name):
    found = cluster_of(device, {"SLURM_CLUSTER_NAME": site}, local)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    ("device", "ranks", "local", "levels"),
    [
        ("NVIDIA A100-SXM4-80GB", 16, 4, {"node": 4, "network": None}),
        ("NVIDIA A100-SXM4-80GB", 16, 8, {"node": 8, "network": None}),
        ("NVIDIA A100-SXM4-80GB", 4, 4, {"node": 8, "network": None}),
        ("NVIDIA A100-SXM4-80GB", 2, 1, {"network": None}),
        ("NVIDIA A100-SXM4-40GB", 8, 2, {"pair": 2, "network": None}),
        ("NVIDIA A100-SXM4-40GB", 16, 8, {"pair": 2, "node": 8, "network": None}),
    ],
    ids=["four-a-node", "whole-nodes", "one-node", "one-a-node", "half-nodes", "larger-nodes"],
)
def test_links_of_a_node_join_only_the_ranks_that_it_has(monkeypatch, device, ranks, local, levels):
    monkeypatch.setattr("sciml.planning.cluster_here.pick_device", lambda _: "cuda")
    monkeypatch.setattr("sciml.planning.cluster_here.device_name", lambda _: device)
    found = cluster_here(ranks, local=local)
    assert {name: link.devices for name, link in found.links.items()} == levels
    if ranks > local:
        assert found.devices_per_node == local
        assert found.links[found.level(local + 1)].gb_per_s == 25


def test_of_an_unknown_device_there_is_no_cluster():
    assert cluster_of("Abacus 3000", {}, 8) is None


def test_a_measured_node_stands_for_all_and_its_network_is_assumed(capsys):
    node = cluster("h100")
    several = over_nodes(node, 32, 8)
    assert (several.devices_per_node, list(several.links)) == (8, ["node", "network"])
    assert several.links["network"].gb_per_s <= several.links["node"].gb_per_s
    assert "assumed" in capsys.readouterr().err
    assert over_nodes(node, 8, 8) is node
