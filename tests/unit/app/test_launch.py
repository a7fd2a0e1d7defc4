"""Batch scripts for Slurm: what they say, what is refused before they wait in a queue, and what they do."""

import json
import os
import signal
import subprocess
import time

import pytest

from sciml.app.cli import main

TORCHRUN = ["nodes=2", "cluster.devices_per_node=4"]
FRONTIER = ["cluster=frontier", "nodes=2", "account=ABC123", "time=02:00:00"]


@pytest.fixture
def printed(capsys):
    def run(*arguments):
        main("launch", list(arguments))
        return capsys.readouterr().out

    return run


def test_torchrun_starts_one_process_a_device(printed):
    script = printed(*TORCHRUN, "account=ABC123", "trainer.global_batch_size=32", "task.intervals=[24h]")
    assert script.startswith("#!/bin/bash\n#SBATCH --job-name=climate\n#SBATCH --account=ABC123\n#SBATCH --nodes=2\n")
    assert "#SBATCH --gpus-per-node=4\n" in script
    assert "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 \\\n" in script
    assert "-m torch.distributed.run --nnodes=2 --nproc-per-node=4 --max-restarts=3 \\\n" in script
    assert "--rdzv-id=$SLURM_JOB_ID --rdzv-backend=c10d --rdzv-endpoint=$MASTER_ADDR:$MASTER_PORT \\\n" in script
    assert "scripts/train.py trainer.global_batch_size=32 'task.intervals=[24h]' &\n" in script
    assert "--partition" not in script


def test_frontier_starts_every_rank_beside_its_device(printed):
    script = printed(*FRONTIER, "experiment=climate_rollout", "trainer.global_batch_size=16")
    for line in ("--account=ABC123", "--partition=batch", "--time=02:00:00", "--network=disable_rdzv_get", "--requeue"):
        assert f"#SBATCH {line}\n" in script
    assert "srun --nodes=2 --ntasks=16 --ntasks-per-node=8 --cpus-per-task=7 --gpus-per-task=1" in script
    assert "module load rccl-net-plugin\n" in script
    assert "export MASTER_ADDR=$(hostname -i)\nexport MASTER_PORT=3442\n" in script
    assert "scripts/train.py experiment=climate_rollout trainer.global_batch_size=16 &\n" in script
    assert "torch.distributed.run" not in script


def test_the_script_is_one_document_for_programs(printed):
    document = json.loads(printed(*TORCHRUN, "output=json"))
    assert document["job"] is None
    assert document["script"].startswith("#!/bin/bash\n")


def test_what_a_user_writes_is_never_taken_for_shell(printed):
    script = printed(*TORCHRUN, "run='a $(rm x) b'")
    assert """ 'run='"'"'a $(rm x) b'"'"'' &""" in script


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nodes=0"], "nodes must be at least 1, got 0"),
        (["time=soon"], "time: 'soon' is no time that Slurm knows; e.g. time=02:00:00"),
        (["time=90"], "time"),
        (["cluster=frontier", "nodes=2"], "account: frontier charges a project; e.g. account=ABC123"),
        (["cluster=frontier", "account=A", "nodes=10000"], "nodes: frontier has 9856 nodes, not 10000; 9856"),
        (["cluster=fronter"], "cluster: unknown option 'fronter'; did you mean 'frontier'?"),
        (["launcher=mpirun"], "launcher must be one of torchrun, srun, got 'mpirun'"),
        (["cluster.devices_per_node=0"], "cluster.devices_per_node must be at least 1, got 0"),
        (["max_restarts=-1"], "max_restarts must be at least 0, got -1; try max_restarts=3"),
        ([*TORCHRUN, "parallel.dp=3"], "parallel.dp: dp 3 does not fit 8 processes"),
        ([*TORCHRUN, "trainer.global_batch_size=12"], "trainer.global_batch_size: 12 samples cannot be shared"),
        ([*TORCHRUN, "trainer.max_stps=3"], "trainer.max_stps: unknown key; did you mean 'trainer.max_steps'"),
        (["min_nodes=2"], "min_nodes must be at most nodes=1, got 2"),
        (["nodes=2", "min_nodes=1", "launcher=srun"], "min_nodes: srun cannot start fewer ranks again within a job"),
        (["nods=3"], "nods: unknown key; did you mean 'nodes'"),
        (["job_name='a\n#SBATCH --wrap=id'"], "job_name must be a name of letters"),
        (["account='a --wrap=id'"], "account must be a name of letters"),
        (["partition='a\rb'"], "partition must be a name of letters"),
        (["sbatch_options=['--qos=a\n#SBATCH --wrap=id']"], "sbatch_options must be printable lines"),
        (["setup=['module load a\n#SBATCH --wrap=id']"], "setup must be printable lines"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        main("launch", arguments)
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2
    assert said.startswith(f"error: {says}"), said


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of Slurm that note how they were called; srun works for a while and heeds what scancel sends."""
    programs = {
        "sbatch": "cat > submitted; echo '4711;cluster'",
        "scontrol": 'if [ "$1" = show ]; then hostname; else echo "$@" >> requeued; fi',
        "scancel": "kill -TERM $(cat running)",
        "srun": "echo $$ > running; trap 'exit 143' TERM; for n in $(seq $STEP_TENTHS); do sleep 0.1; done; exit $CODE",
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/bash\ncd {tmp_path}\n{text}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "here")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    return tmp_path


def test_a_job_may_go_on_with_fewer_nodes(printed):
    script = printed(*TORCHRUN, "nodes=4", "min_nodes=2", "trainer.global_batch_size=32")
    assert "#SBATCH --no-kill" in script
    assert "--nnodes=2:4 " in script
    assert "--kill-on-bad-exit=0 --no-kill" in script
    assert "--no-kill" not in printed(*TORCHRUN)


def test_submitting_hands_the_script_to_sbatch(printed, slurm):
    script = printed(*TORCHRUN)
    document = json.loads(printed(*TORCHRUN, "submit=true", "output=json"))
    assert document == {"script": script.rstrip("\n") + "\n", "job": "4711"}
    assert (slurm / "submitted").read_text() == document["script"]


def test_submitting_without_sbatch_or_against_its_will_fails_in_one_sentence(capsys, slurm, monkeypatch):
    (slurm / "bin" / "sbatch").write_text("#!/bin/bash\necho 'invalid account' >&2\nexit 1\n")
    for path, code, says in (
        (os.environ["PATH"], 1, "sbatch refused the job: invalid account"),
        (str(slurm), 2, "submit: there is no sbatch here"),
    ):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(SystemExit) as ended:
            main("launch", [*TORCHRUN, "submit=true"])
        assert ended.value.code == code
        assert f"error: {says}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "code", "unfinished", "restarts", "time_is_up", "requeued"),
    [
        ("srun", 0, False, 0, False, False),  # done
        ("srun", 1, True, 0, False, True),  # a rank was lost
        ("srun", 137, True, 3, False, False),  # too often
        ("srun", 2, True, 0, False, False),  # bad input will be bad again
        ("srun", 1, False, 0, False, False),  # it had not begun
        ("torchrun", 1, True, 0, False, False),  # torchrun has restarted it often enough
        ("srun", 0, True, 9, True, True),
        ("torchrun", 0, True, 0, True, True),
        ("srun", 0, False, 0, True, False),  # it finished just then
    ],
)
def test_a_job_is_requeued_while_its_training_is_unfinished(
    printed, slurm, monkeypatch, launcher, code, unfinished, restarts, time_is_up, requeued
):
    script = printed(*TORCHRUN, f"launcher={launcher}", f"runs_dir={slurm / 'my runs'}")
    notes = slurm / "my runs" / ".jobs"
    notes.mkdir(parents=True)
    (notes / "slurm-471-abc.json").touch()  # another job's
    if unfinished:
        (notes / "slurm-4711-abc.json").touch()
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    monkeypatch.setenv("CODE", str(code))
    monkeypatch.setenv("STEP_TENTHS", "300" if time_is_up else "0")
    job = subprocess.Popen(["bash", "-c", script])
    try:
        if time_is_up:
            deadline = time.monotonic() + 10
            while not (slurm / "running").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)
            job.send_signal(signal.SIGUSR1)
        ended = job.wait(timeout=20)
    finally:
        job.kill()
    assert (slurm / "requeued").exists() == requeued
    if requeued:
        assert (slurm / "requeued").read_text() == "requeue 4711\n"
    if not time_is_up:
        assert ended == code
