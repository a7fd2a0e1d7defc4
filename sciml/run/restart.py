"""Going on by itself: a job that torchrun restarts, or Slurm requeues, finds the run that it began.

When a run's folder is ready the job leaves a note of it, ``<runs_dir>/.jobs/<job>-<configuration>.json``, and removes
the note when all is done. So a note that is there means that this job began this training and did not end it.
Only its restarted processes read it: whoever starts a training anew gets a new run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciml.core.errors import DataError
from sciml.core.files import write_json
from sciml.distributed.launcher import job_name, restarts
from sciml.distributed.world import World
from sciml.run.folder import RunFolder

NOTES = ".jobs"


@dataclass(frozen=True)
class Job:
    """The job that this process belongs to.

    Attributes:
        world: all its processes; those of this training.
        note: the file that names its run; None where no launcher started the process.
    """

    world: World
    note: Path | None

    @classmethod
    def of(cls, values: Mapping[str, Any], runs_dir: str, world: World) -> Job:
        """The job of a training.

        Args:
            values: the composed configuration. A job may train several models, one after another.
        """
        name = job_name()
        if name is None:
            return cls(world, None)
        text = json.dumps(values, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return cls(world, Path(runs_dir) / NOTES / f"{name}-{digest}.json")

    def earlier(self) -> RunFolder | None:
        """The run that this job began before it was restarted; the same on all processes.

        None in the first start, and where it was restarted before its run had a folder.

        Raises:
            DataError: where the note cannot be read.
        """
        # Where several nodes are restarted, torchrun counts it only on those whose processes had failed.
        if not self.world.any(self.note is not None and restarts() > 0):
            return None
        run = self.world.share(self._read() if self.world.is_main else None)
        return None if run is None else RunFolder(Path(run))

    def began(self, folder: RunFolder) -> None:
        """Leaves the note; to be called when everything that resuming needs is in the run's folder."""
        if self.note is not None and self.world.is_main:
            write_json(self.note, {"run": str(folder.path)})

    def finished(self) -> None:
        """Removes the note."""
        if self.note is not None and self.world.is_main:
            self.note.unlink(missing_ok=True)

    def _read(self) -> str | None:
        if self.note is None or not self.note.exists():
            return None
        try:
            return json.loads(self.note.read_text())["run"]
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError):
            raise DataError(f"{self.note} is corrupted; remove it, and go on with resume=latest") from None
