"""Reads what a launcher (torchrun, srun, mpiexec, or none) says of this process, and starts processes of one's own."""

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
_LAUNCHERS = re.compile(
    r"RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|MASTER_(ADDR|PORT)|(TORCHELASTIC|SLURM|GROUP|ROLE)_.*"
    r"|(OMPI|PMI|PMIX|PALS|JSM|FLUX_JOB|FLUX_TASK)_.*|MPI_LOCALN?RANK(S|ID)"
)


@dataclass(frozen=True)
class Launcher:
    """Names the variables by which a launcher tells each process its place; of several names the first that is set.

    An allocation's own shell must have none of ``rank``, or a size of one: it is not launched.

    Attributes:
        command: that starts the processes, for people.
        rank: number of the process.
        size: of all processes.
        local_rank: number among those of the node.
        local_size: of those of the node, as a number or, by node, as Slurm writes it, ``8(x2),4``.
        node: number of the node, which says which of several local sizes counts.
        nodes: number of nodes, where no local size is told: then all have as many processes.
        first_node: shell words that print where the first process is.
        only_with: a variable that the processes have and the allocation's shell has not.
    """

    command: str
    rank: tuple[str, ...]
    size: tuple[str, ...]
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...] = ()
    node: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    first_node: str = "$(hostname -i)"
    only_with: str | None = None


# MPI's own launchers come before Slurm: they start a process a node by srun, and that one starts the others.
LAUNCHERS = (
    Launcher(
        "jsrun", ("JSM_NAMESPACE_RANK",), ("JSM_NAMESPACE_SIZE",), ("JSM_NAMESPACE_LOCAL_RANK",),
        ("JSM_NAMESPACE_LOCAL_SIZE",), first_node="$(grep -v batch $LSB_DJOB_HOSTFILE | head -n 1)",
    ),
    Launcher(
        "mpirun", ("OMPI_COMM_WORLD_RANK",), ("OMPI_COMM_WORLD_SIZE",), ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
    ),
    Launcher(
        "mpiexec", ("PALS_RANKID",), ("PALS_SIZE", "PMI_SIZE"), ("PALS_LOCAL_RANKID",),
        ("PALS_LOCAL_SIZE", "PMI_LOCAL_SIZE"),
    ),
    Launcher(
        "mpiexec", ("PMI_RANK",), ("PMI_SIZE",), ("MPI_LOCALRANKID", "PMI_LOCAL_RANK"),
        ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"), only_with="MPI_LOCALRANKID",
    ),
    Launcher(
        "flux run", ("FLUX_TASK_RANK",), ("FLUX_JOB_SIZE",), ("FLUX_TASK_LOCAL_ID",), nodes=("FLUX_JOB_NNODES",),
        first_node="$(flux hostlist -n 0 local)",
    ),
    # A batch script has SLURM_PROCID and SLURM_NTASKS too, but is no step: only srun's processes are. The shell of an
    # interactive allocation is a step of one task, whatever SLURM_NTASKS says.
    Launcher(
        "srun", ("SLURM_PROCID",), ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), ("SLURM_LOCALID",),
        ("SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE"), ("SLURM_NODEID",), only_with="SLURM_STEP_ID",
    ),
    # srun --mpi=pmi2 sets these beside its own, so they count where nothing else was found.
    Launcher("mpiexec", ("PMI_RANK",), ("PMI_SIZE",), ("PMI_LOCAL_RANK",), ("PMI_LOCAL_SIZE",)),
)  # fmt: skip


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
        local_size: how many processes this node has; None where the launcher does not say.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: tuple[str, int] = ("localhost", TORCHRUN_PORT)
    agent: bool = False
    attempt: int = 0
    local_size: int | None = None

    @property
    def host(self) -> str:
        return socket.gethostname()

    @property
    def keeps_store(self) -> bool:
        """Says whether this process keeps the store that the others connect to."""
        return self.rank == 0 and not self.agent


def launched() -> Launch:
    """Returns this process as its launcher announces it: torchrun, or one of :data:`LAUNCHERS`; or alone.

    Raises:
        ConfigError: where a launcher started several processes and a variable that says where they are, or where their
            store is, is missing or no number.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return Launch(
            rank=_number("RANK"),
            size=_number("WORLD_SIZE"),
            local_rank=_number("LOCAL_RANK"),
            address=_address(),
            agent=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=_number("TORCHELASTIC_RESTART_COUNT"),
            local_size=_number("LOCAL_WORLD_SIZE") or None,
        )
    by = next((launcher for launcher in LAUNCHERS if _started(launcher)), None)
    if by is None:
        return Launch()
    size = _needed(by, by.size, "several")
    if size == 1:
        return Launch()
    local_size = _local_size(by, size)
    if "MASTER_ADDR" not in os.environ and local_size != size:
        raise ConfigError(
            f"must be set where {by.command} starts {size} processes",
            key="MASTER_ADDR",
            hint=f"try export MASTER_ADDR={by.first_node} in the batch script",
        )
    return Launch(
        rank=_needed(by, by.rank, size),
        size=size,
        local_rank=_needed(by, by.local_rank, size),
        address=_address(),
        attempt=_number("SLURM_RESTART_COUNT"),
        local_size=local_size,
    )


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


def _started(by: Launcher) -> bool:
    """Says whether a launcher started this process."""
    return _set(by.rank) is not None and (by.only_with is None or by.only_with in os.environ)


def _set(names: tuple[str, ...]) -> str | None:
    """Returns the first of some variables that is set."""
    return next((name for name in names if name in os.environ), None)


def _needed(by: Launcher, names: tuple[str, ...], size: int | str) -> int:
    name = _set(names)
    if name is None:
        raise ConfigError(
            f"must be set where {by.command} starts {size} processes",
            key=names[0],
            hint="let the launcher pass its variables on, or start the processes with torchrun",
        )
    return _number(name)


def _local_size(by: Launcher, size: int) -> int | None:
    """Returns how many processes this node has, or None where the launcher does not say."""
    if name := _set(by.local_size):
        sizes = [
            int(count)
            for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ[name])
            for _ in range(int(times or 1))
        ]
        node = _number(here) if (here := _set(by.node)) else 0
        return sizes[min(node, len(sizes) - 1)] if sizes else None
    nodes = _number(count) if (count := _set(by.nodes)) else 0
    return -(-size // nodes) if nodes else None


def _address() -> tuple[str, int]:
    return os.environ.get("MASTER_ADDR", "localhost"), _number("MASTER_PORT", TORCHRUN_PORT)


def _number(name: str, default: int = 0) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"must be a number, got {text!r}", key=name, hint="leave it to the launcher") from None
