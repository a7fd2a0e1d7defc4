"""Reports what is installed, what each missing extra would give, and whether processes can talk to one another."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.installation import OWN_CONF, install
from sciml.core.progress import waiting
from sciml.core.provenance import PACKAGES, machine, version
from sciml.core.result import CommandResult, Output
from sciml.core.types import AtLeastOne, NonNegative
from sciml.planning.cluster import ClusterConfig
from sciml.planning.machine import THIS_MACHINE, count_of, measure_machine, save_cluster
from sciml.report.tables import Column, facts, render, table
from sciml.run.compose import Composition

TIMEOUT_S = 120
EXTRAS = {
    "grib": (("cfgrib", "eccodes"), "read GRIB files"),
    "simulate": (("dinosaur",), "simulate weather (simulate domain=climate)"),
    "cloud": (("gcsfs", "s3fs", "aiohttp"), "read data from Google Cloud, S3 and the web"),
    "deephyper": (("deephyper",), "tune strategies with DeepHyper (tune sampler=deephyper)"),
    "tracking": (("tensorboard", "mlflow", "sqlalchemy", "wandb"), "show runs in TensorBoard, MLflow or W&B"),
    "test": (("pytest", "ruff", "mypy"), "run the tests and checks"),
}
# Each process adds its rank to the others' over gloo; what comes out is known beforehand. Gloo's
# threads may abort in Python's own teardown.
CHECK = """
import os, sys, torch, torch.distributed as dist
rank, size, port = map(int, sys.argv[1:])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
total = torch.tensor(float(rank))
dist.all_reduce(total)
os._exit(0 if total.item() == size * (size - 1) / 2 else 3)
"""


@dataclass(frozen=True)
class DoctorConfig:
    """Holds the keys of ``conf/doctor.yaml``."""

    processes: NonNegative[int] = 2
    measure: bool = False
    num_threads: AtLeastOne = 1
    out: str | None = None
    output: Output = "text"

    def __post_init__(self) -> None:
        if self.processes == 1:
            raise ConfigError("must be at least 2, got 1", key="processes", hint="0 leaves the check out")
        if self.out is not None and not self.out.endswith(".yaml"):
            raise ConfigError(f"{self.out} is no option of the group cluster", key="out", hint="name a .yaml file")


def run(composition: Composition) -> CommandResult:
    """Examines this machine and prints what is installed."""
    config = build(DoctorConfig, composition.config)
    with waiting(f"checking that {config.processes} processes can talk"):
        communication = _check_communication(config.processes)
    document = {
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in PACKAGES},
        "extras": {
            name: {"installed": all(map(_is_there, modules)), "gives": gives}
            for name, (modules, gives) in EXTRAS.items()
        },
        "machine": machine(),
        "communication": communication,
    }
    text = _text(document)
    if config.measure:
        path = Path(config.out) if config.out else OWN_CONF / "cluster" / f"{THIS_MACHINE}.yaml"
        cluster = measure_machine(max(1, config.processes), num_threads=config.num_threads)
        save_cluster(cluster, path)
        document = {**document, "cluster": asdict(cluster), "written": str(path)}
        text += f"\n\n{_measured_text(cluster)}\nwritten        {path}"
    return CommandResult(document, text)


def _measured_text(cluster: ClusterConfig) -> str:
    peaks = ", ".join(f"{name} {peak:.3g}" for name, peak in cluster.peak_tflops.items())
    link = next(iter(cluster.links.values()))
    return "\n".join([
        f"measured       {count_of(cluster.devices_per_node)} at work, {cluster.memory_gb:.3g} GB each",
        f"products       {peaks} TFLOP/s",
        f"other kernels  {cluster.memory_gb_per_s:.3g} GB/s, {cluster.kernel_us:.3g} us at least",
        f"messages       {link.gb_per_s:.3g} GB/s, {link.latency_us:.3g} us at least",
    ])  # fmt: skip


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check_communication(processes: int) -> str:
    """Returns ``ok``, ``left out``, or what went wrong."""
    if processes == 0:
        return "left out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    commands = [[sys.executable, "-c", CHECK, str(rank), str(processes), str(port)] for rank in range(processes)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        for rank, process in enumerate(running):
            _, errors = process.communicate(timeout=TIMEOUT_S)
            if process.returncode:
                last = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {process.returncode}"
                return f"process {rank} of {processes} failed: {last}"
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S} s; look at firewalls and host names"
    finally:
        for process in running:
            process.kill()
            process.wait()
    return "ok"


def _text(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    accelerators = ", ".join(machine["accelerators"]) or "none; the CPU is used"
    installed = {"python": document["python"], **{n: v or "MISSING" for n, v in document["packages"].items()}}
    here = {
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        "accelerators": accelerators,
        "communication": document["communication"],
    }
    extras = [
        [name, extra["gives"], "installed" if extra["installed"] else f"missing: {install(name)}"]
        for name, extra in document["extras"].items()
    ]
    return render(facts(installed), "", facts(here), "", table(["extra", "to", Column("", is_folded=False)], extras))
