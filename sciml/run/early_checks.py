"""Builds the groups of keys that need neither a domain nor torch, so that a wrong key is answered at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.core.config import build
from sciml.parallel.config import ParallelConfig
from sciml.training.config import OptimConfig, TrainerConfig
from sciml.training.engine_config import EngineConfig
from sciml.training.tracking import TrackingConfig

KINDS: Mapping[str, type] = {
    "trainer": TrainerConfig,
    "optim": OptimConfig,
    "parallel": ParallelConfig,
    "engine": EngineConfig,
    "tracking": TrackingConfig,
}
"""The dataclass of each group."""


def check_groups(config: Mapping[str, Any]) -> None:
    """Refuses keys and values of a training that are wrong whatever its domain.

    Raises:
        ConfigError: naming the key.
    """
    if all(isinstance(config.get(group), Mapping) for group in KINDS):
        build_groups(config)


def build_groups(config: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the groups of a training that are the same in every domain, by their names.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    return {group: build(kind, config[group], prefix=group) for group, kind in KINDS.items()}
