"""What may go wrong between processes, each scenario in processes of its own; prints how each process ended.

One program imports everything and forks: a scenario then costs a fraction of a second of computing. All run at once.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from sciml.app import cli
from sciml.core import provenance
from sciml.core.errors import ConfigError
from sciml.distributed import failure_report
from sciml.distributed.world import join

TIMEOUT_S = 8.0


def all_go_on(rank):
    world = join("cpu", TIMEOUT_S)
    world.agree("the configuration", {"trainer": {"lr": 0.1}})
    assert world.share("from 0" if rank == 0 else "mine") == "from 0"


def another_version(rank):
    if rank == 1:
        installed = provenance.version
        provenance.version = lambda package: "1.0" if package == "torch" else installed(package)
    join("cpu", TIMEOUT_S)


def another_configuration(rank):
    join("cpu", TIMEOUT_S).agree("the configuration", {"seed": 0, "optim": {"lr": 0.1 * (1 + rank // 2)}})


def one_refuses(rank):
    world = join("cpu", TIMEOUT_S)
    if rank == 1:
        raise ConfigError("what rank 1 sees is wrong", key="data.path")
    world.barrier()


def one_has_a_bug(rank):
    world = join("cpu", TIMEOUT_S)
    if rank == 1:
        raise KeyError("the bug")
    world.barrier()


def one_is_killed(rank):
    world = join("cpu", TIMEOUT_S)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.barrier()


def one_is_stuck(rank):
    world = join("cpu", TIMEOUT_S)
    if rank == 1:
        time.sleep(1.75 * TIMEOUT_S)
        os._exit(7)
    world.barrier()


def the_keeper_is_killed(rank):
    failure_report.CONNECT_S = TIMEOUT_S
    world = join("cpu", TIMEOUT_S)
    world.barrier()
    if rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    world.barrier()


def all_refuse_before_they_meet(rank):
    raise ConfigError("unknown key", key="trainer.lrr")


def all_refuse_together(rank):
    world = join("cpu", TIMEOUT_S)
    world.barrier()
    raise ConfigError("unknown key", key="trainer.lrr")


def one_does_not_join(rank):
    join("cpu", TIMEOUT_S)


SCENARIOS = {  # how many processes there should be, and which of them come
    all_go_on: (3, [0, 1, 2]),
    another_version: (2, [0, 1]),
    another_configuration: (3, [0, 1, 2]),
    one_refuses: (3, [0, 1, 2]),
    one_has_a_bug: (2, [0, 1]),
    one_is_killed: (3, [0, 1, 2]),
    one_is_stuck: (2, [0, 1]),
    the_keeper_is_killed: (2, [0, 1]),
    all_refuse_before_they_meet: (3, [0, 1, 2]),
    all_refuse_together: (3, [0, 1, 2]),
    one_does_not_join: (4, [0, 1, 3]),
}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(scenario, rank, size, port, said):
    """Forks a process that runs a scenario as srun would have started it; returns its id."""
    if pid := os.fork():
        return pid
    srun = {"STEP_ID": 0, "PROCID": rank, "NTASKS": size, "LOCALID": rank}
    os.environ |= {f"SLURM_{name}": str(value) for name, value in srun.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    cli._run = lambda verb, arguments: scenario(rank)
    cli.main("train", [])
    os._exit(99)


def main(folder):
    began = time.monotonic()
    running = {}
    for scenario, (size, ranks) in SCENARIOS.items():
        port = free_port()
        for rank in ranks:
            said = folder / f"{scenario.__name__}-{rank}"
            running[start(scenario, rank, size, port, said)] = (scenario.__name__, rank, said)
    ended = {}
    while running:
        pid, status = os.wait()
        name, rank, said = running.pop(pid)
        lines = [line for line in said.read_text().splitlines() if not line.startswith(("[W", "[E"))]
        took = time.monotonic() - began
        ended.setdefault(name, {})[rank] = {
            "code": os.waitstatus_to_exitcode(status), "said": "\n".join(lines), "took_s": took
        }  # fmt: skip
    print(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
