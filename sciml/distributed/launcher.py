"""Reads what a launcher (torchrun, srun, or none) says of this process, and starts processes of one's own."""

from __future__ import annotations

import os
import re
import socket
import sys
from dataclasses import dataclass
from typing import NoReturn

from sciml.core.errors import ConfigError

TORCHRUN_PORT = 29500
UNNAMED = "none"
"""Names a job of torchrun without ``--rdzv-id``, whose processes always meet at the same address. One with it has a
name of its own, and when it loses nodes another of them may become the place to meet.
"""
_LAUNCHERS = re.compile(r"RANK|WORLD_SIZE|LOCAL_RANK|MASTER_(ADDR|PORT)|(TORCHELASTIC|SLURM|GROUP|ROLE)_.*")


@dataclass(frozen=True)
class Launch:
    """Describes the place of this process in the group that a launcher started.

    Attributes:
        rank: number of this process, 0 to ``size - 1``.
        size: how many processes there are.
        local_rank: number of this process among those of its node.
        address: host and port of the store of their rendezvous.
        agent: whether the launcher itself keeps the store there (torchrun); else process 0 does.
        attempt: how often the launcher has restarted the group.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: tuple[str, int] = ("localhost", TORCHRUN_PORT)
    agent: bool = False
    attempt: int = 0

    @property
    def host(self) -> str:
        return socket.gethostname()

    @property
    def keeps_store(self) -> bool:
        """Says whether this process keeps the store that the others connect to."""
        return self.rank == 0 and not self.agent


def launched() -> Launch:
    """Returns this process as torchrun (RANK, WORLD_SIZE) or srun (SLURM_PROCID, SLURM_NTASKS) announces it; or alone.

    Raises:
        ConfigError: where srun started several processes and MASTER_ADDR does not say where their store is.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return Launch(
            rank=_number("RANK"),
            size=_number("WORLD_SIZE"),
            local_rank=_number("LOCAL_RANK"),
            address=_address(),
            agent=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=_number("TORCHELASTIC_RESTART_COUNT"),
        )
    # A batch script has SLURM_PROCID and SLURM_NTASKS too, but is no step: only srun's processes are.
    if "SLURM_STEP_ID" in os.environ and _number("SLURM_NTASKS", 1) > 1:
        if "MASTER_ADDR" not in os.environ:
            raise ConfigError(
                f"must be set where srun starts {_number('SLURM_NTASKS', 1)} processes",
                key="MASTER_ADDR",
                hint="try export MASTER_ADDR=$(hostname -i) in the batch script, or print one with scripts/launch.py",
            )
        return Launch(
            rank=_number("SLURM_PROCID"),
            size=_number("SLURM_NTASKS"),
            local_rank=_number("SLURM_LOCALID"),
            address=_address(),
            attempt=_number("SLURM_RESTART_COUNT"),
        )
    return Launch()


def restarts() -> int:
    """Returns how often torchrun has restarted this group, and Slurm requeued its job."""
    return _number("TORCHELASTIC_RESTART_COUNT") + _number("SLURM_RESTART_COUNT")


def job_name() -> str | None:
    """Returns a name that a job keeps over its restarts and shares with no running job; None without a launcher."""
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"slurm-{job}"
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    if run == UNNAMED:
        host, port = _address()
        # "localhost" says nothing where several machines share the folder of runs.
        host = socket.gethostname() if host in ("localhost", "127.0.0.1", "::1") else host
        run = f"{run}-{host}-{port}"
    return f"torchrun-{run}".replace("/", "_") if run else None


def leave_out(size: int) -> None:
    """Reduces the group of this process to its first ``size`` ranks, for all that asks who was launched."""
    os.environ["WORLD_SIZE"] = str(size)


def program(processes: int) -> list[str]:
    """Returns the command that starts a Python program in a number of processes on this machine."""
    if processes == 1:
        return [sys.executable]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]


def without_launcher(num_threads: int = 1) -> dict[str, str]:
    """Returns an environment for processes that do not belong to the launcher that started this one."""
    own = {name: value for name, value in os.environ.items() if not _LAUNCHERS.fullmatch(name)}
    return {**own, "OMP_NUM_THREADS": str(num_threads)}


def leave(code: int) -> NoReturn:
    """Ends this process at once: threads of its peers' messages (gloo's) may deadlock or abort in Python's teardown."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _address() -> tuple[str, int]:
    return os.environ.get("MASTER_ADDR", "localhost"), _number("MASTER_PORT", TORCHRUN_PORT)


def _number(name: str, default: int = 0) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"must be a number, got {text!r}", key=name, hint="leave it to the launcher") from None
