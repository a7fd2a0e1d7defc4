"""Scoring a trained run again, perhaps on other data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sciml.app.cli import Outcome
from sciml.app.run_folder import RunFolder
from sciml.app.train import score_run
from sciml.core.config import build
from sciml.dist.world import join


@dataclass(frozen=True)
class EvaluateConfig:
    """Keys of ``conf/evaluate.yaml``."""

    run: str = "latest"
    runs_dir: str = "runs"
    checkpoint: str | int = "best"
    device: str = "auto"
    output: str = "text"
    changes: dict[str, Any] = field(default_factory=dict)


def run(values: Mapping[str, Any]) -> Outcome | None:
    """Scores and reports."""
    config = build(EvaluateConfig, values)
    folder = RunFolder.find(config.run, config.runs_dir)
    return score_run(folder, join(config.device), checkpoint=str(config.checkpoint), changes=config.changes)
