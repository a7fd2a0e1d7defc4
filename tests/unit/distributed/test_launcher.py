"""What the environment says of a process."""

import os

import pytest

from sciml.core.errors import ConfigError
from sciml.distributed.launcher import Launch, job_name, launched, restarts


@pytest.fixture
def environment(monkeypatch):
    """Sets the launcher's variables and nothing else."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_", "MASTER_")) or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)

    def put(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return put


def test_without_a_launcher_a_process_is_alone(environment):
    assert launched() == Launch(0, 1)
    assert job_name() is None
    assert restarts() == 0


def test_torchrun_is_understood(environment):
    environment(RANK=5, WORLD_SIZE=8, LOCAL_RANK=1, MASTER_ADDR="node3", MASTER_PORT=1234,
                TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT=2, TORCHELASTIC_RUN_ID="j")  # fmt: skip
    assert launched() == Launch(5, 8, 1, ("node3", 1234), agent=True, attempt=2)
    assert not launched().keeps_store
    assert job_name() == "torchrun-j"
    assert restarts() == 2


def test_srun_is_understood_and_its_first_process_keeps_the_store(environment):
    environment(SLURM_STEP_ID=0, SLURM_PROCID=0, SLURM_NTASKS=16, SLURM_LOCALID=0, MASTER_ADDR="node1", SLURM_JOB_ID=77)
    assert launched() == Launch(0, 16, 0, ("node1", 29500))
    assert launched().keeps_store
    assert job_name() == "slurm-77"


def test_torchrun_inside_of_srun_wins(environment):
    environment(RANK=1, WORLD_SIZE=2, SLURM_STEP_ID=0, SLURM_PROCID=0, SLURM_NTASKS=16)
    assert launched().size == 2


def test_a_batch_script_is_not_one_of_its_tasks(environment):
    environment(SLURM_PROCID=0, SLURM_NTASKS=16, SLURM_JOB_ID=77)
    assert launched().size == 1


def test_srun_that_names_no_place_to_meet_is_refused(environment):
    environment(SLURM_STEP_ID=0, SLURM_PROCID=3, SLURM_NTASKS=4)
    with pytest.raises(
        ConfigError,
        match=r"MASTER_ADDR must be set where srun starts 4 processes; try exp",
    ):
        launched()


def test_a_rank_that_is_no_number_is_refused(environment):
    environment(RANK="first", WORLD_SIZE=2)
    with pytest.raises(ConfigError, match="RANK must be a number, got 'first'"):
        launched()


def test_jobs_of_other_machines_have_other_names(environment, monkeypatch):
    environment(TORCHELASTIC_RUN_ID="none", MASTER_ADDR="localhost", MASTER_PORT=29500)
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    assert job_name() == "torchrun-none-here-29500"
