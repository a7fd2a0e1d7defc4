"""Reference energies that are known, and splits that keep a trajectory together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from domains.materials.data.near_duplicates import near_duplicates
from domains.materials.data.prepare import PrepareConfig, prepare
from domains.materials.data.store import MaterialsStore
from domains.materials.data_defaults import without_effect
from domains.materials.domain import MaterialsDomain
from domains.materials.inference.predictor import Predictor
from domains.materials.training.task import MaterialsTaskConfig
from sciml.app.cli import main
from sciml.core.errors import ConfigError, DataError
from sciml.run.folder import RunFolder
from tests.reports import without_reports

from .alloy_files import alloy, extxyz, relabeled

FREE = {"Cu": -0.2, "Ni": -0.6}


def free_atom(symbol, shift=0.0):
    atoms = Atoms(symbol, cell=[20.0] * 3, pbc=True, info={"config_type": "IsolatedAtom"})
    energy = FREE[symbol] + shift
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((1, 3)), stress=np.zeros(6))
    return atoms


def bound(seed, elements=("Cu", "Ni")):
    """An alloy whose atoms are bound by 3 and 4 eV beside what EMT says."""
    atoms = alloy(seed, elements)
    shift = sum({"Cu": -3.0, "Ni": -4.0}[s] + FREE[s] for s in atoms.symbols)
    return relabeled(atoms, energy=atoms.calc.results["energy"] + shift)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    frames = [bound(n, (("Cu",), ("Ni",), ("Cu", "Ni"))[n % 3]) for n in range(20)]
    atoms = [free_atom("Cu"), free_atom("Ni"), free_atom("Ni", 0.5)]
    return extxyz(tmp_path_factory.mktemp("free") / "set.extxyz", [*frames, *atoms])


def store_of(path, out, **options):
    return MaterialsStore.open(prepare(PrepareConfig(path=path, out=str(out), cutoff=4.0, **options)))


def test_isolated_atoms_are_exact_references_and_in_no_split(path, tmp_path):
    store = store_of(path, tmp_path / "store")
    assert store.statistics.references.tolist() == [[-0.6, -0.2]]  # Ni, Cu; the lower of two states
    np.testing.assert_allclose(store.statistics.bonding.numpy(), [[-4.0, -3.0]], atol=0.4)
    assert store.statistics.energy_std < 0.3
    used = np.concatenate([store.indices(name) for name in ("train", "valid", "test")])
    assert len(used) == 20
    assert used.max() == 19
    assert store.schema.exact_references


def test_given_references_come_first_and_others_are_fitted(path, tmp_path):
    store = store_of(path, tmp_path / "store", references={"Ni": -1.5, "W": -9.0})
    assert store.statistics.references.tolist() == [[-1.5, -0.2]]
    with pytest.raises(ConfigError, match=r"references must be one of .*'Nj'"):
        PrepareConfig(path=path, references={"Nj": 1.0})


def test_a_free_atom_has_its_reference_energy(path, tmp_path):
    with without_reports():
        main(
            "train",
            [
                "domain=materials", f"data.path={path}", f"data.cache={tmp_path}", f"runs_dir={tmp_path}",
                "model.num_channels=8", "model.num_layers=1", "model.cutoff=4", "data.cutoff=4", "trainer.max_steps=5",
                "trainer.valid_every=5", "trainer.save_every=5", "trainer.num_threads=1", "output=json",
            ],
        )  # fmt: skip
    predictor = Predictor.open(RunFolder.find("latest", str(tmp_path)).path, dtype="float64")
    store = MaterialsStore.open(next(tmp_path.glob("set-*")))
    lonely, bulk = (store.structure(n) for n in (20, 0))
    free, matter = predictor.predict([lonely, bulk])
    alone = predictor.model.heads["energy"]  # what the network itself says of an atom without neighbors
    assert alone is not None
    assert float(free["energy"]) == pytest.approx(-0.2, abs=0.3)
    assert float(matter["energy"]) / len(bulk) == pytest.approx(float(bulk.labels["energy"]) / len(bulk), abs=0.5)


def test_statistics_of_before_have_no_bonding(path, tmp_path):
    statistics = store_of(path, tmp_path / "store").statistics
    tensors = statistics.to_tensors()
    del tensors["bonding"]
    older = MaterialsDomain().restore({"elements": [28, 29], "cutoff": 4.0, "labels": {}}, tensors).statistics
    assert older.bonding is None
    zeros = older.bonding_energy(torch.tensor([28, 29]), (28, 29), torch.tensor([0, 0]))
    assert zeros.tolist() == [0.0, 0.0]


def trajectory(seed, steps, move):
    """Frames of a relaxation: each atom moves a little from frame to frame."""
    start = alloy(seed)
    direction = np.random.default_rng(seed).normal(size=(len(start), 3))
    frames = []
    for step in range(steps):
        atoms = start.copy()
        atoms.positions += move * step * direction
        atoms.calc = start.calc
        frames.append(relabeled(atoms))
    return frames


@pytest.mark.parametrize(("runs", "length"), [(40, 3), (12, 3), (10, 2)])
def test_near_duplicates_stay_on_one_side_of_a_split(runs, length, tmp_path, capsys):
    frames = [atoms for seed in range(runs) for atoms in trajectory(seed, length, 0.005)]
    store = store_of(extxyz(tmp_path / "a.extxyz", frames), tmp_path / "store")
    found = near_duplicates(store.arrays)
    np.testing.assert_array_equal(found, np.repeat(np.arange(runs), length))
    for first in range(0, len(frames), length):
        assert len(set(store.arrays.split[first : first + length].tolist())) == 1
    sizes = [len(store.indices(name)) / len(frames) for name in ("train", "valid", "test")]
    assert sizes == pytest.approx([0.8, 0.1, 0.1], abs=0.07)
    assert "are cut" not in capsys.readouterr().err


def test_frames_that_differ_are_split_one_by_one_and_long_runs_are_cut(tmp_path, capsys):
    far = [atoms for seed in range(3) for atoms in trajectory(seed, 8, 0.03)]
    store = store_of(extxyz(tmp_path / "a.extxyz", far), tmp_path / "far")
    assert len(set(near_duplicates(store.arrays).tolist())) == 24
    long = store_of(extxyz(tmp_path / "b.extxyz", trajectory(0, 100, 0.001)), tmp_path / "long")
    assert set(near_duplicates(long.arrays)) == {0}
    assert "runs of up to 100 near duplicates are cut to " in capsys.readouterr().err
    sizes = [len(long.indices(name)) for name in ("train", "valid", "test")]
    assert sizes == pytest.approx([80, 10, 10], abs=11)
    assert all(sizes)
    # a run is cut into pieces of frames that follow one another, and not shuffled
    assert (np.diff(long.arrays.split) != 0).sum() < 12


def test_atoms_at_one_place_are_left_out_where_that_is_allowed(tmp_path, capsys):
    frames = [alloy(n) for n in range(12)]
    frames[5].positions[1] = frames[5].positions[0] + 0.11
    path = extxyz(tmp_path / "a.extxyz", frames)
    with pytest.raises(DataError, match=r"a\.extxyz@5: atoms 0 and 1 are 0\.19 A apart"):
        store_of(path, tmp_path / "refused")
    store = store_of(path, tmp_path / "store", skip_bad=True)
    assert len(store) == 11
    assert store.header["left_out"]["structures"] == 1
    assert "1 left out (skip_bad): " in capsys.readouterr().err


def test_labels_that_are_not_there_are_told(tmp_path, capsys):
    frames = [relabeled(alloy(n), forces=None, stress=None) for n in range(12)]
    store_of(extxyz(tmp_path / "a.extxyz", frames), tmp_path / "store")
    assert "no forces label: forces_weight has no effect" in capsys.readouterr().err
    lines = without_effect(MaterialsTaskConfig(), MaterialsStore.open(tmp_path / "store").schema)
    assert lines[1] == "no stress label in the data: task.targets.energy.stress_weight has no effect"
