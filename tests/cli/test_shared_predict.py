"""Processes that torchrun starts share a large structure and write what one process writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

ROOT = Path(__file__).resolve().parents[2]


def predict(folder: Path, *arguments: str, ranks: int = 0) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks else []
    words = [sys.executable, *launcher, str(ROOT / "scripts/predict.py"), f"run={ROOT / 'models/materials'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*words, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )


@pytest.mark.slow
def test_two_processes_predict_as_one(tmp_path):
    atoms = bulk("Ni", "fcc", 3.55, cubic=True).repeat((10, 7, 6))
    atoms.numbers = np.random.default_rng(0).choice([27, 28, 29], len(atoms))
    atoms.rattle(0.05, seed=0)
    write(tmp_path / "given.extxyz", [atoms, atoms[:4]])
    common = ("structures=given.extxyz", "dtype=float64", "device=cpu")
    for name, ranks in (("one", 0), ("two", 2)):
        done = predict(tmp_path, *common, f"out={name}.extxyz", ranks=ranks)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("predicted  2 structures") == 1
    for one, two in zip(read(tmp_path / "one.extxyz", ":"), read(tmp_path / "two.extxyz", ":"), strict=True):
        assert two.get_potential_energy() == pytest.approx(one.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(two.get_forces(), one.get_forces(), atol=2e-8)
    refused = predict(tmp_path, *common, "out=three.extxyz", "relax=atoms", ranks=2)
    assert refused.returncode
    assert "structures are relaxed in one process" in refused.stderr
