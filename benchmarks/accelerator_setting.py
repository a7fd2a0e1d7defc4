"""Holds what the items of ``accelerator.py`` share: the device, its cluster, a clock, and trainings on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from planned_memory import CPU

from sciml.core.devices import device_name
from sciml.distributed.world import World
from sciml.planning.cluster import ClusterConfig
from sciml.planning.cluster_here import cluster_of, read_cluster
from sciml.planning.machine import measure_machine, save_cluster
from sciml.run.compose import compose
from sciml.run.session import TrainingSession

Result = tuple[list[str], dict[str, Any]]
"""Lines for people, and figures; what stands under ``failed`` there makes an item fail."""
PLAIN = (
    "trainer.budget_s=null", "reference_models=null", "optim.ema_decay=null", "trainer.log_every=1",
    "trainer.save_every=1000", "trainer.valid_every=1000", "trainer.valid_samples=4", "optim.warmup_steps=2",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """Holds what all items are told.

    Attributes:
        size: ``full`` or ``small``.
        folder: of the results.
        before: what became of the items before.
    """

    device: torch.device
    size: str
    folder: Path
    before: dict[str, Any]

    @property
    def on_cpu(self) -> bool:
        return self.device.type == "cpu"

    @property
    def cluster(self) -> ClusterConfig:
        """Returns the cluster of the device: known by its name, else measured once; of a CPU one that is assumed."""
        if self.on_cpu:
            return CPU
        known = cluster_of(device_name(self.device.type), os.environ)
        path = self.folder / "cluster.yaml"
        if known is None and not path.exists():
            save_cluster(measure_machine(1, self.device.type), path)
        return known or read_cluster(path)


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def mean_seconds(work: Callable[[], Any], setting: Setting, calls: int) -> float:
    """Measures the mean seconds of a call, after one that warms up."""
    work()
    wait(setting.device)
    began = time.perf_counter()
    for _ in range(calls):
        work()
    wait(setting.device)
    return (time.perf_counter() - began) / calls


def start_training(arguments: list[str], setting: Setting, folder: str) -> TrainingSession:
    """Starts a training on the device, as ``train.py`` would."""
    from sciml.testing.sessions import start_session

    composition = compose("train", [*arguments, f"runs_dir={folder}"])
    return start_session(composition, World(0, 1, setting.device))
