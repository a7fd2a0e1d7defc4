"""Checks of a composed configuration that need neither a domain nor torch, so that a wrong key is answered at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.core.config import build
from sciml.parallel.config import ParallelConfig
from sciml.training.config import OptimConfig, TrainerConfig
from sciml.training.engine_config import EngineConfig
from sciml.training.tracking import TrackingConfig

GROUPS: Mapping[str, type] = {
    "trainer": TrainerConfig,
    "optim": OptimConfig,
    "parallel": ParallelConfig,
    "engine": EngineConfig,
    "tracking": TrackingConfig,
}


def check_groups(config: Mapping[str, Any]) -> None:
    """Refuses keys and values of a training that are wrong whatever its domain.

    Raises:
        ConfigError: as :meth:`sciml.run.spec.RunSpec.build` would.
    """
    if all(isinstance(config.get(group), Mapping) for group in GROUPS):
        for group, kind in GROUPS.items():
            build(kind, config[group], prefix=group)
