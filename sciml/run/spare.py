"""A job that has lost nodes for good goes on with fewer replicas, at the same global batch.

torchrun starts a group again with the nodes that are left (``--nnodes=2:4``). As many of their processes as suit the
run's batch and degrees go on from its newest checkpoint, on any mesh; only ``dp`` becomes smaller. The others stand by:
when another node is lost they take part again, and when the training is done they end.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from sciml.distributed.launcher import launched, leave_out
from sciml.run.compose import Composition
from sciml.run.degrees import fitting_size
from sciml.run.restart import note_file, noted_run
from sciml.run.resume import resumed_config
from sciml.run.spec import RunOptions, RunSpec

PAUSE_S = 1.0


def waits_beside(composition: Composition) -> bool:
    """Returns False in a process that takes part in the training; in a spare one it waits for the end first.

    Raises:
        ConfigError: too few processes are left for the degrees that cut the model.
    """
    launch = launched()
    file = note_file(composition.config, RunOptions.build(composition.config).runs_dir) if launch.agent else None
    begun = noted_run(file)
    if file is None or begun is None:
        return False
    spec = RunSpec.build(resumed_config(begun.folder, composition, restarted=True))
    size = fitting_size(spec, launch.size)
    if size < launch.size:
        if launch.rank == 0:
            spare = launch.size - size
            print(
                f"of {launch.size} processes that are left {size} go on with {begun.run}, and {spare} stand by",
                file=sys.stderr,
                flush=True,
            )
        leave_out(size)
    if launch.rank < size:
        return False
    _wait_for_end(file)
    return True


def _wait_for_end(note: Path) -> None:
    """Waits until the training is done, which removes its note, or the launcher ends this process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while note.exists():
        time.sleep(PAUSE_S)
