"""How often to write checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sciml.planning.cadence import Cadence
from tests.unit.planning.models import cluster

KNOWN = replace(cluster("frontier"), node_mtbf_hours=50_000.0, storage_gb_per_s=100.0)


def test_the_interval_loses_least():
    found = Cadence.of(KNOWN, 3072, 12e12)
    assert found is not None
    assert (found.failure_s, found.write_s) == (50_000 * 3600 / 384, 120.0)
    assert found.interval_s == pytest.approx(math.sqrt(2 * 120 * found.failure_s), rel=0.05)

    def lost(interval):
        return found.write_s / (interval + found.write_s) + (interval + found.write_s) / (2 * found.failure_s)

    assert found.lost == pytest.approx(min(lost(found.interval_s * f) for f in (0.8, 0.9, 1, 1.1, 1.25)), rel=0.01)


def test_four_times_the_nodes_halve_the_interval():
    few, many = (Cadence.of(KNOWN, devices, 1e12) for devices in (1024, 4096))
    assert few is not None
    assert many is not None
    assert few.interval_s / many.interval_s == pytest.approx(2, rel=0.1)


def test_without_a_rate_of_failures_there_is_no_advice():
    assert Cadence.of(cluster("h100"), 64, 1e12) is None
