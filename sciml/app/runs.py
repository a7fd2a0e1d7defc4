"""The runs that there are: listed, compared by what they were trained with and how they score, or deleted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.files import disk_errors
from sciml.core.installation import is_of_the_project
from sciml.core.result import CommandResult, Output
from sciml.report.runs import RunSummary, differences, list_text, runs_under, side_by_side
from sciml.run.compose import Composition
from sciml.run.folder import RunFolder
from sciml.run.lock import living_holder


@dataclass(frozen=True)
class RunsConfig:
    """Holds the keys of ``conf/runs.yaml``."""

    run: str | list[str] | None = None
    runs_dir: str = "runs"
    domain: str | None = None
    action: Literal["list", "compare", "delete"] = "list"
    force: bool = False
    output: Output = "text"

    def __post_init__(self) -> None:
        if self.action != "list" and not self.names:
            raise ConfigError("no run is named", key="run", hint=f"e.g. action={self.action} run=[monday,tuesday]")
        if self.action == "compare" and len(self.names) < 2:
            raise ConfigError("must be two runs or more", key="run", hint="e.g. run=[monday,tuesday]")

    @property
    def names(self) -> list[str]:
        return [self.run] if isinstance(self.run, str) else self.run or []


def run(composition: Composition) -> CommandResult:
    """Does what ``action`` says."""
    config = build(RunsConfig, composition.config)
    if config.action == "list":
        return _list(config)
    folders = [RunFolder.find(name, config.runs_dir, domain=config.domain) for name in config.names]
    if config.action == "delete":
        return _delete(folders, config)
    runs = [RunSummary.of(folder) for folder in folders]
    document = {"runs": [_document(run) for run in runs], "differences": differences(runs)}
    return CommandResult(document, side_by_side(runs))


def _list(config: RunsConfig) -> CommandResult:
    if config.names:
        found = (RunFolder.find(name, config.runs_dir, domain=config.domain) for name in config.names)
        runs = [RunSummary.of(folder) for folder in found]
    else:
        runs = runs_under(config.runs_dir, config.domain)
    return CommandResult({"runs": [_document(run) for run in runs]}, list_text(runs))


def _document(run: RunSummary) -> dict[str, Any]:
    facts = asdict(run) | {"path": str(run.path), "metric": None if run.metric is None else run.metric.name}
    return {name: value for name, value in facts.items() if name != "config"}


def _delete(folders: Sequence[RunFolder], config: RunsConfig) -> CommandResult:
    """Deletes runs, after a question that is answered with y; a run that is being trained is refused, and so is a model
    that comes with the project.

    Raises:
        ConfigError: where nobody can be asked.
    """
    for folder in folders:
        if is_of_the_project(folder.path.resolve()):
            raise ConfigError(f"{folder.path} comes with the project", key="run", hint="name a run of your own")
        if (holder := living_holder(folder.path)) is not None:
            raise ConfigError(f"{folder.path} is being trained by {holder.text}", key="run", hint="stop it first")
    if not config.force:
        if not sys.stdin.isatty():
            raise ConfigError("nobody can be asked here", key="force", hint="add --force to delete without a question")
        print(list_text([RunSummary.of(folder) for folder in folders]), file=sys.stderr)
        print(
            f"Delete {'this run' if len(folders) == 1 else 'these runs'}? [y/N] ", end="", file=sys.stderr, flush=True
        )
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return CommandResult({"deleted": []}, "nothing was deleted")
    for folder in folders:
        with disk_errors(folder.path):
            shutil.rmtree(folder.path)
    paths = [str(folder.path) for folder in folders]
    return CommandResult({"deleted": paths}, "\n".join(f"deleted  {path}" for path in paths))
