"""Checkpoints that four processes write together on one mesh are opened on any other, and in one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from sciml.training.checkpoint import CheckpointStore, read_manifest, read_tensors
from tests.distributed.checkpoint_ranks import LAYOUTS, expect, whole

PROGRAM = Path(__file__).with_name("checkpoint_ranks.py")
ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 180


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder that four processes have filled; what failed in them is shown."""
    folder = tmp_path_factory.mktemp("written")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([sys.executable, str(PROGRAM), str(folder)], env=environment, timeout=TIMEOUT_S, **pipes)
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


def test_all_acts_were_played(written):
    _, said = written
    acts = [line for line in said.splitlines() if line.replace("_", "").isalpha()]
    assert len(acts) == 6


def test_a_fallback_is_told_once(written):
    _, said = written
    assert said.count("warning: ") == 2  # two fallbacks, told by one of four processes
    assert "shard-00002.safetensors is missing or corrupted; use an earlier checkpoint of" in said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_process_opens_every_layout(written, layout):
    path = CheckpointStore(written[0] / layout).latest()
    assert read_manifest(path)["step"] == 1
    expect(read_tensors(path, {name: torch.zeros_like(tensor) for name, tensor in whole().items()}), whole())


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("layout", ["shard4", "rows2_columns2", "stages"])
def test_torchs_own_reader_opens_it_too(written, layout):
    path = CheckpointStore(written[0] / layout).latest()
    wanted = {name: tensor for name, tensor in whole().items() if tensor.numel()}
    found = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(path)), no_dist=True)
    expect(found, wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_replicas_are_written_once_and_by_many(written, layout):
    path = CheckpointStore(written[0] / layout).latest()
    shares = []
    for file in path.glob("*.safetensors"):
        header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        shares.append(file.stat().st_size - header)
    assert sum(shares) == sum(tensor.nbytes for tensor in whole().values())
    if layout != "stages":
        assert max(shares) < 0.5 * sum(shares)


def test_a_process_that_died_leaves_the_earlier_checkpoint_and_its_half_is_cleared_away(written):
    store = CheckpointStore(written[0] / "dying")
    assert store.steps() == [1]
    assert store.newest_intact() == store.path(1)
    store.save(2, whole())
    assert sorted(p.name for p in store.directory.iterdir()) == ["step-00000001", "step-00000002"]
    expect(read_tensors(store.path(2), whole()), whole())


def copied(world, folder):
    """Bytes that each process copies of tensors that all of them hold, and the files of two checkpoints."""
    store = CheckpointStore(Path(folder), world, asynchronous=True)
    for step in (1, 2):
        store.save(step, {name: torch.full((100 + n,), step) for n, name in enumerate("abcdef")})
        store.finish()
    sizes = [sum(copy.nbytes for copy in store._copies.values()), len(store._copies)]
    whole = read_tensors(store.path(2), {name: torch.zeros(100 + n) for n, name in enumerate("abcdef")})
    assert all((value == 2).all() for value in whole.values())
    return sizes


def test_a_process_copies_only_what_it_writes(ranks, tmp_path):
    assert [count for _, count in ranks(2).run(copied, tmp_path)] == [3, 3]
