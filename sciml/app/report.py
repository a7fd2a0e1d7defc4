"""Drawing a run's report again from its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sciml.core.config import build
from sciml.core.result import CommandResult
from sciml.report.run_report import draw_report
from sciml.run.folder import RunFolder
from sciml.run.spec import build_experiment


@dataclass(frozen=True)
class ReportConfig:
    """Keys of ``conf/report.yaml``."""

    run: str = "latest"
    runs_dir: str = "runs"
    output: str = "text"
    changes: dict[str, Any] | None = None


def run(values: Mapping[str, Any]) -> CommandResult:
    """Draws and says where."""
    config = build(ReportConfig, values)
    folder = RunFolder.find(config.run, config.runs_dir)
    report = draw_report(folder, build_experiment(folder.record["config"]).domain)
    return CommandResult({"run": str(folder.path), "report": str(report)}, f"report  {report}")
