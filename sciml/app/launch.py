"""Starting a training on a cluster with Slurm: a batch script, checked before it waits in a queue."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from sciml.core.config import build
from sciml.core.errors import ConfigError, RunError
from sciml.core.installation import training
from sciml.core.result import CommandResult, Output
from sciml.core.sentences import plain
from sciml.core.types import AtLeastOne, NonNegative
from sciml.planning.cluster import ClusterConfig
from sciml.run.compose import Composition, root_of
from sciml.run.degrees import check_degrees
from sciml.run.restart import NOTES
from sciml.run.spec import RunSpec

SUBMIT_TIMEOUT_S = 60
NOTICE_S = 120
"""How long before its end the job is told, so that a checkpoint can be written."""
_NAME = re.compile(r"[\w.+@%-]+", re.ASCII)
"""Names that cannot end their line of the batch script and begin an option of their own."""
_TIME = re.compile(r"(\d+-)?\d{1,3}:\d{2}:\d{2}")


@dataclass(frozen=True)
class LaunchConfig:
    """Holds the keys of ``conf/launch.yaml`` and ``conf/launch/``; what they mean is said there."""

    cluster: ClusterConfig
    nodes: AtLeastOne
    time: str
    launcher: Literal["torchrun", "srun"]
    first_node: str
    port: int
    account: str | None = None
    account_needed: bool = False
    partition: str | None = None
    job_name: str | None = None
    max_restarts: NonNegative[int] = 3
    min_nodes: AtLeastOne | None = None
    submit: bool = False
    sbatch_options: tuple[str, ...] = ()
    srun_options: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    output: Output = "text"

    def __post_init__(self) -> None:
        most = self.cluster.num_nodes
        if most is not None and self.nodes > most:
            raise ConfigError(f"{self.cluster.name} has {most} nodes, not {self.nodes}", key="nodes", hint=f"{most}")
        if self.min_nodes is not None and self.min_nodes > self.nodes:
            raise ConfigError(f"must be at most nodes={self.nodes}, got {self.min_nodes}", key="min_nodes")
        if self.min_nodes is not None and self.launcher == "srun":
            raise ConfigError(
                "srun cannot start fewer ranks again within a job", key="min_nodes", hint="use launcher=torchrun"
            )
        if not _TIME.fullmatch(self.time):
            raise ConfigError(f"{self.time!r} is no time that Slurm knows", key="time", hint="e.g. time=02:00:00")
        if self.account_needed and not self.account:
            raise ConfigError(f"{self.cluster.name} charges a project", key="account", hint="e.g. account=ABC123")
        for key in ("job_name", "account", "partition"):
            if not _NAME.fullmatch(getattr(self, key) or "-"):
                got = plain(getattr(self, key), quoted=True)
                raise ConfigError(f"must be a name of letters, digits and . _ - + @ %, got {got}", key=key)
        for key in ("sbatch_options", "srun_options", "setup"):
            if any(not line.isprintable() for line in getattr(self, key)):
                raise ConfigError("must be printable lines, got one with another character", key=key)

    @property
    def num_processes(self) -> int:
        return self.nodes * self.cluster.devices_per_node


def run(composition: Composition) -> CommandResult:
    """Checks the training as its ranks would, and prints or submits the script that starts it.

    Arguments that are no keys of this command go on to ``scripts/train.py``.

    Raises:
        ConfigError: for whatever would end the job as soon as it starts.
        RunError: where sbatch refuses it.
    """
    own = {field.name for field in fields(LaunchConfig)}
    config = build(LaunchConfig, {name: value for name, value in composition.config.items() if name in own})
    spec = RunSpec.build({name: value for name, value in composition.config.items() if name not in own})
    check_degrees(spec, config.num_processes)
    arguments = [argument for argument in composition.arguments if root_of(argument) not in own]
    script = batch_script(config, config.job_name or spec.domain.name, spec.options.runs_dir, arguments)
    if not config.submit:
        return CommandResult({"script": script, "job": None}, script)
    job = _submit(script)
    return CommandResult({"script": script, "job": job}, f"submitted job {job}; cancel it with: scancel {job}")


def batch_script(config: LaunchConfig, name: str, runs_dir: str, overrides: Sequence[str]) -> str:
    """Returns the script for sbatch.

    Args:
        name: of the job.
        runs_dir: where the training leaves its notes.
        overrides: arguments of ``scripts/train.py``.
    """
    train = [sys.executable, *training(), *overrides]
    command = _torchrun(config, train) if config.launcher == "torchrun" else _srun(config, train)
    notes = f'{shlex.quote(f"{runs_dir}/{NOTES}")}/slurm-"$SLURM_JOB_ID"-*.json'
    return "\n".join([*_header(config, name), "", *_environment(config), "", *_body(command, notes, config)]) + "\n"


def _header(config: LaunchConfig, name: str) -> list[str]:
    options = {
        "job-name": name,
        "account": config.account,
        "partition": config.partition,
        "nodes": config.nodes,
        "time": config.time,
        "output": "%x-%j.log",
        "open-mode": "append",
        "signal": f"B:USR1@{NOTICE_S}",
    }
    lines = [f"--{key}={value}" for key, value in options.items() if value is not None]
    lines += ["--requeue", *(["--no-kill"] if config.min_nodes else []), *config.sbatch_options]
    return ["#!/bin/bash", *(f"#SBATCH {line}" for line in lines)]


def _environment(config: LaunchConfig) -> list[str]:
    lines = [*config.setup, f"export MASTER_ADDR={config.first_node}", f"export MASTER_PORT={config.port}"]
    if config.launcher == "torchrun":
        # torchrun kills after 30 s what does not end; a checkpoint may take longer.
        lines.append(f"export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={NOTICE_S - 10}")
    return lines


def _srun(config: LaunchConfig, train: list[str]) -> list[list[str]]:
    per_node, cores = config.cluster.devices_per_node, config.cluster.cores_per_device
    placement = [f"--nodes={config.nodes}", f"--ntasks={config.num_processes}", f"--ntasks-per-node={per_node}"]
    options = [*([f"--cpus-per-task={cores}"] if cores else []), *config.srun_options, "--kill-on-bad-exit=1"]
    return [["srun", *placement, *options], train]


def _torchrun(config: LaunchConfig, train: list[str]) -> list[list[str]]:
    per_node, cores = config.cluster.devices_per_node, config.cluster.cores_per_device
    placement = [f"--nodes={config.nodes}", f"--ntasks={config.nodes}", "--ntasks-per-node=1"]
    if config.min_nodes is None:
        placement, nodes = [*placement, "--kill-on-bad-exit=1"], str(config.nodes)
    else:  # the others go on without a node that is lost
        placement, nodes = [*placement, "--kill-on-bad-exit=0", "--no-kill"], f"{config.min_nodes}:{config.nodes}"
    agent = [f"--nnodes={nodes}", f"--nproc-per-node={per_node}", f"--max-restarts={config.max_restarts}"]
    meeting = ["--rdzv-id=$SLURM_JOB_ID", "--rdzv-backend=c10d", "--rdzv-endpoint=$MASTER_ADDR:$MASTER_PORT"]
    srun = ["srun", *placement, *([f"--cpus-per-task={cores * per_node}"] if cores else [])]
    return [srun, [train[0], "-m", "torch.distributed.run", *agent], meeting, train[1:]]


def _body(command: list[list[str]], notes: str, config: LaunchConfig) -> list[str]:
    again = '[ -n "$time_is_up" ]'
    if config.launcher == "srun":  # torchrun restarts a group within the job; here the job itself is restarted
        often = f'[ "${{SLURM_RESTART_COUNT:-0}}" -lt {config.max_restarts} ]'
        again += f' || {{ [ "$code" -ne 0 ] && [ "$code" -ne 2 ] && {often}; }}'
    return [
        f"# {NOTICE_S} s before the time is up this shell gets USR1 and hands TERM to the ranks: they save and end.",
        "time_is_up=",
        "trap 'time_is_up=yes; scancel --signal=TERM \"$SLURM_JOB_ID\"' USR1",
        "",
        " \\\n  ".join(_quoted(words) for words in command) + " &",
        "step=$!",
        'wait "$step"; code=$?',
        'while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done  # a trap ends wait early',
        "",
        "# A note is left while a training is not finished; the requeued job goes on from its newest checkpoint.",
        f"if compgen -G {notes} >/dev/null; then",
        f"  if {again}; then",
        '    scontrol requeue "$SLURM_JOB_ID"',
        "  fi",
        "fi",
        'exit "$code"',
    ]


def _quoted(words: Sequence[str]) -> str:
    # Our own words hold the job's variables, for the shell to fill in; a user's are taken as they are.
    return " ".join(word if word.startswith("--rdzv-") else shlex.quote(word) for word in words)


def _submit(script: str) -> str:
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise ConfigError("there is no sbatch here", key="submit", hint="use a login node, or submit=false to print")
    done = subprocess.run(
        [sbatch, "--parsable"], input=script, text=True, capture_output=True, timeout=SUBMIT_TIMEOUT_S
    )
    if done.returncode:
        raise RunError(f"sbatch refused the job: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout.strip().split(";")[0]
