"""The report of a run, drawn again from its files."""

from __future__ import annotations

from dataclasses import dataclass

from sciml.core.config import build
from sciml.core.errors import ConfigError, DataError
from sciml.core.result import CommandResult, Output
from sciml.domain.loading import load_domain
from sciml.report.run_report import draw_report
from sciml.run.compose import Composition
from sciml.run.folder import RunFolder


@dataclass(frozen=True)
class ReportConfig:
    """Holds the keys of ``conf/report.yaml``."""

    run: str = "latest"
    runs_dir: str = "runs"
    output: Output = "text"


def run(composition: Composition) -> CommandResult:
    """Draws the report and prints its path."""
    config = build(ReportConfig, composition.config)
    folder = RunFolder.find(config.run, config.runs_dir)
    domain = load_domain(folder.record["config"]["domain"])
    try:
        report = draw_report(folder, domain)
    except ConfigError as error:
        raise error if error.key == "run" else DataError(f"{folder.path} is corrupted: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{folder.path}: its files do not fit together, and no report can be drawn ({reason}); evaluate it again"
        ) from error
    return CommandResult({"run": str(folder.path), "report": str(report)}, f"report  {report}")
