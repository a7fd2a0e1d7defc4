"""Clusters as configurations."""

import pytest

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.groups import options
from sciml.planning.cluster import ClusterConfig, Link
from tests.unit.planning.models import cluster

KNOWN = [name for name in options("cluster") if name not in ("generic", "this_machine")]


@pytest.mark.parametrize("name", KNOWN)
def test_every_cluster_knows_what_a_plan_needs(name):
    found = cluster(name)
    found.check_for_plans()
    assert found.peak_tflops["fp32"] < found.peak_tflops["fp16"]
    speeds = [link.gb_per_s for link in found.links.values()]
    assert speeds[-1] == min(speeds)
    assert next(iter(reversed(found.links.values()))).devices is None
    assert found.power_w


def test_the_clusters_of_the_talk_and_todays_nodes_are_there():
    assert {"frontier", "summit", "perlmutter", "aurora", "h100", "h200", "b200", "mi300x"} <= set(KNOWN)
    assert (cluster("frontier").memory_gb, cluster("frontier").peak_tflops["fp16"]) == (68.7, 191.5)
    assert "bf16" not in cluster("summit").peak_tflops


def test_neighbors_are_joined_by_the_nearest_level():
    frontier = cluster("frontier")
    levels = {span: frontier.level(span) for span in (1, 2, 3, 4, 8, 9, 3072)}
    assert levels == {
        1: "package",
        2: "package",
        3: "neighbors",
        4: "neighbors",
        8: "node",
        9: "network",
        3072: "network",
    }


def test_a_cluster_of_which_nothing_is_known_says_what_it_wants():
    with pytest.raises(ConfigError, match=r"cluster.memory_gb: is not known of cluster=generic; write it, e.g."):
        cluster("generic").check_for_plans()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"memory_gb": 0}, "cluster.memory_gb must be above 0, got 0"),
        ({"device": "abacus"}, "cluster.device must be one of accelerator, cpu, got 'abacus'"),
        ({"peak_tflops": {"fp64": 1.0}}, "cluster.peak_tflops must be one of fp32, bf16, fp16, got 'fp64'"),
        ({"peak_tflops": {"fp32": 0.0}}, "cluster.peak_tflops.fp32 must be above 0, got 0.0"),
        ({"links": {"node": {"devices": 8, "gb_per_s": 0}}}, "cluster.links.node.gb_per_s must be above 0, got 0"),
        ({"links": {"node": Link(8, 1.0)}}, "cluster.links: the last level, and no other, joins all nodes"),
        (
            {"links": {"a": Link(8, 1.0), "b": Link(4, 1.0), "c": Link(None, 1.0)}},
            "cluster.links: levels .* do not grow",
        ),
    ],
)
def test_what_cannot_be_a_cluster_is_refused(values, says):
    with pytest.raises(ConfigError, match=says):
        build(ClusterConfig, {"name": "x", "devices_per_node": 8, **values}, prefix="cluster")
