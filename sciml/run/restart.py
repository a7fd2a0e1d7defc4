"""Restarts: a job that torchrun restarts, or Slurm requeues, continues the run that it began.

When a run's folder is ready the job writes a note of it, ``<runs_dir>/.jobs/<job>-<configuration>.json``, and removes
the note when all is done. So a note that exists says that this job began this training and did not end it.
Only its restarted processes read it: whoever starts a training anew gets a new run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from sciml.core.files import read_json, write_json
from sciml.distributed.launcher import job_name, restarts
from sciml.distributed.world import World
from sciml.run.folder import RunFolder

NOTES = ".jobs"


@dataclass(frozen=True)
class BegunRun:
    """Says which run a job began, and with how many processes."""

    run: str
    processes: int

    @property
    def folder(self) -> RunFolder:
        return RunFolder(Path(self.run))


@dataclass(frozen=True)
class RestartNote:
    """Says which run a job began.

    Attributes:
        world: the processes of the job.
        file: where the note is; None where no launcher started the processes, so that nothing restarts them.
    """

    world: World
    file: Path | None

    @classmethod
    def of(cls, config: Mapping[str, Any], runs_dir: str, world: World) -> RestartNote:
        """Returns the note of a training.

        Args:
            config: the composed configuration. A job may train several models, one after another.
        """
        return cls(world, note_file(config, runs_dir))

    def begun(self) -> BegunRun | None:
        """Returns the run that this job began before it was restarted; the same on all processes.

        None in the first start, and where the job was restarted before its run had a folder.

        Raises:
            DataError: where the note cannot be read.
        """
        # Where several nodes are restarted, torchrun counts it only on those whose processes had failed.
        if not self.world.any(self.file is not None and restarts() > 0):
            return None
        found: BegunRun | None = self.world.share(noted_run(self.file) if self.world.is_main else None)
        return found

    def write(self, run: RunFolder) -> None:
        """Writes the note; to be called when everything that resuming needs is in the run's folder."""
        if self.file is not None and self.world.is_main:
            before = noted_run(self.file)
            processes = before.processes if before and before.run == str(run.path) else self.world.size
            write_json(self.file, {"run": str(run.path), "processes": processes})

    def remove(self) -> None:
        """Removes the note; to be called when nothing is left to be done."""
        if self.file is not None and self.world.is_main:
            self.file.unlink(missing_ok=True)


def note_file(config: Mapping[str, Any], runs_dir: str) -> Path | None:
    """Returns where the note of a training lies; None where no launcher started this process."""
    job = job_name()
    if job is None:
        return None
    text = json.dumps(config, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Path(runs_dir) / NOTES / f"{job}-{digest}.json"


def noted_run(file: Path | None) -> BegunRun | None:
    """Returns what a note says; None where there is no note.

    Raises:
        DataError: where it cannot be read.
    """
    if file is None or not file.exists():
        return None
    note: _Note = read_json(file, _Note, advice="remove it, and go on with resume=latest")
    return BegunRun(note["run"], note["processes"])


class _Note(TypedDict):
    run: str
    processes: int
