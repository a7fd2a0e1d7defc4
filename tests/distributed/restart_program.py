"""A job that loses a process at its first attempt: started by torchrun, which restarts it. Argument: runs_dir."""

import json
import os
import signal
import sys
from pathlib import Path

from sciml.app import cli
from sciml.core.errors import ConfigError
from sciml.distributed.launcher import launched
from sciml.distributed.world import join
from sciml.run.folder import RunFolder
from sciml.run.restart import RestartNote


def work(runs_dir):
    world = join("cpu", 60)
    note = RestartNote.of({"seed": 0}, runs_dir, world)
    other = RestartNote.of({"seed": 1}, runs_dir, world)
    attempt = launched().attempt
    found, others = note.begun(), other.begun()
    if world.is_main:
        seen = {"attempt": attempt, "run": found and found.run, "other": others and "found"}
        with (Path(runs_dir) / "seen.jsonl").open("a") as file:
            file.write(json.dumps(seen) + "\n")
    if attempt == 0:
        note.write(RunFolder(Path(runs_dir) / "toy" / "mine"))
        world.barrier()
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        world.barrier()
    if attempt == 1:
        world.barrier()
        note.remove()
        world.barrier()
        assert note.begun() is None
        raise ConfigError("enough", key="seed")


cli._run = lambda verb, arguments: work(sys.argv[1])
cli.main("train", [])
