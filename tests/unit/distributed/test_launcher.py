"""What the environment says of a process."""

import os

import pytest

from sciml.core.errors import ConfigError
from sciml.distributed.launcher import Launch, job_name, launched, restarts, without_launcher


@pytest.fixture
def environment(monkeypatch):
    """Sets the launcher's variables and nothing else."""
    for name in set(os.environ) - set(without_launcher()):
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


OPEN_MPI = {"RANK": 5, "SIZE": 8, "LOCAL_RANK": 1, "LOCAL_SIZE": 4}
OPEN_MPI = {f"OMPI_COMM_WORLD_{name}": value for name, value in OPEN_MPI.items()}
JSM = {"RANK": 5, "SIZE": 8, "LOCAL_RANK": 1, "LOCAL_SIZE": 4}
JSM = {f"JSM_NAMESPACE_{name}": value for name, value in JSM.items()}
PALS = {"PALS_RANKID": 5, "PMI_SIZE": 8, "PMI_RANK": 5, "PALS_LOCAL_RANKID": 1, "PALS_LOCAL_SIZE": 4}
HYDRA = {"PMI_RANK": 5, "PMI_SIZE": 8, "MPI_LOCALRANKID": 1, "MPI_LOCALNRANKS": 4}
CRAY = {"PMI_RANK": 5, "PMI_SIZE": 8, "PMI_LOCAL_RANK": 1, "PMI_LOCAL_SIZE": 4}
FLUX = {"FLUX_TASK_RANK": 5, "FLUX_JOB_SIZE": 8, "FLUX_TASK_LOCAL_ID": 1, "FLUX_JOB_NNODES": 2}
SRUN = {"PROCID": 5, "NTASKS": 8, "LOCALID": 1, "STEP_ID": 0, "STEP_TASKS_PER_NODE": "4(x2)", "NODEID": 1}
SRUN = {f"SLURM_{name}": value for name, value in SRUN.items()}
DAEMON_OF_SRUN = {"SLURM_PROCID": 1, "SLURM_NTASKS": 2, "SLURM_LOCALID": 0, "SLURM_STEP_ID": 0}


@pytest.mark.parametrize(
    "values",
    [
        OPEN_MPI,
        JSM,
        PALS,
        HYDRA,
        CRAY,
        FLUX,
        SRUN,
        {**OPEN_MPI, **DAEMON_OF_SRUN},
        {**HYDRA, **DAEMON_OF_SRUN},
        {"PMI_RANK": 5, "PMI_SIZE": 8, **SRUN},
        {**OPEN_MPI, **JSM},
    ],
    ids=["openmpi", "jsrun", "pals", "hydra", "cray", "flux", "srun", "openmpi-slurm", "hydra-slurm", "pmi2", "summit"],
)
def test_every_launcher_tells_a_process_its_place(environment, values):
    environment(**values, MASTER_ADDR="node1")
    assert launched() == Launch(5, 8, 1, ("node1", 29500), local_size=4)
    assert not set(values) & set(without_launcher())


def test_processes_of_one_node_need_no_address(environment):
    environment(**{**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": 8, "OMPI_COMM_WORLD_LOCAL_RANK": 5})
    assert launched() == Launch(5, 8, 5, ("localhost", 29500), local_size=8)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            OPEN_MPI,
            r"MASTER_ADDR must be set where mpirun starts 8 processes; try export MASTER_ADDR=\$\(hostname -i\)",
        ),
        (FLUX, r"MASTER_ADDR must be set where flux run starts 8 processes; .*\$\(flux hostlist -n 0 local\)"),
        ({"PALS_RANKID": 1, "MASTER_ADDR": "node1"}, "PALS_SIZE must be set where mpiexec starts several processes"),
        ({"PMI_RANK": 1, "PMI_SIZE": 2, "MASTER_ADDR": "a"}, "PMI_LOCAL_RANK must be set where mpiexec starts 2 proc"),
    ],
    ids=["no-address", "flux", "no-size", "no-local-rank"],
)
def test_what_a_launcher_leaves_unsaid_is_refused(environment, values, sentence):
    environment(**values)
    with pytest.raises(ConfigError, match=sentence):
        launched()


@pytest.mark.parametrize(
    ("tasks", "node", "local"), [("8(x2)", 1, 8), ("8(x2),4", 2, 4), ("4,8(x3)", 0, 4), ("4,8(x3)", 3, 8)]
)
def test_srun_tells_how_many_tasks_each_node_has(environment, tasks, node, local):
    environment(**{**SRUN, "SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_NODEID": node}, MASTER_ADDR="node1")
    assert launched().local_size == local


@pytest.mark.parametrize(
    "values",
    [
        {
            "PBS_NODEFILE": "f",
            "PBS_JOBID": 7,
            "LSB_DJOB_HOSTFILE": "f",
            "FLUX_URI": "local:///run",
            "FLUX_JOB_ID": "f1",
        },
        {**SRUN, "SLURM_STEP_ID": 4294967290, "SLURM_STEP_NUM_TASKS": 1},
        {"PMI_RANK": 0, "PMI_SIZE": 1},
    ],
    ids=["batch", "salloc", "one"],
)
def test_the_shell_of_an_allocation_is_alone(environment, values):
    environment(**values)
    assert launched() == Launch()


def test_a_rank_that_is_no_number_is_refused(environment):
    environment(RANK="first", WORLD_SIZE=2)
    with pytest.raises(ConfigError, match="RANK must be a number, got 'first'"):
        launched()


def test_jobs_of_other_machines_have_other_names(environment, monkeypatch):
    environment(TORCHELASTIC_RUN_ID="none", MASTER_ADDR="localhost", MASTER_PORT=29500)
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    assert job_name() == "torchrun-none-here-29500"
