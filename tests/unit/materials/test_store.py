import pickle

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list as ase_neighbor_list

from domains.materials.data.append_npy import GrowingArray
from domains.materials.data.batch import collate
from domains.materials.data.neighbors import neighbor_list
from domains.materials.data.prepare import PrepareConfig, prepare
from domains.materials.data.references import fit_references
from domains.materials.data.schema import MaterialsSchema, MaterialsStatistics
from domains.materials.data.store import MaterialsStore
from domains.materials.data.store_writer import frame_key
from domains.materials.data.structure import Structure
from sciml.core.errors import DataError

from .alloy_files import alloy, extxyz, mixed_set, relabeled


def some_labels(frames):
    """Every second frame lacks its stress, every third its forces; the last alone has moments."""
    for n, atoms in enumerate(frames):
        gone = {"stress": None} if n % 2 else {}
        gone |= {"forces": None} if n % 3 == 2 else {}
        moments = {"magmoms": np.arange(len(atoms)) * 0.1} if n == len(frames) - 1 else {}
        yield relabeled(atoms, **gone, **moments)


@pytest.fixture(scope="module")
def frames():
    return list(some_labels(mixed_set(12)))


@pytest.fixture(scope="module")
def store(frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    path = extxyz(folder / "alloys.extxyz", frames)
    return MaterialsStore.open(prepare(PrepareConfig(path=path, out=str(folder / "s"), title="EMT-labeled")))


def test_structures_come_back_as_they_were(store, frames):
    assert len(store) == 12
    for n, atoms in enumerate(frames):
        found, expected = store.structure(n), Structure.from_atoms(atoms)
        np.testing.assert_array_equal(found.atomic_numbers, expected.atomic_numbers)
        np.testing.assert_allclose(found.positions, expected.positions, atol=1e-7)
        assert set(found.labels) == set(expected.labels)
        for name, value in expected.labels.items():
            np.testing.assert_allclose(found.labels[name], value, atol=1e-7)
        assert found.name.endswith(f"alloys.extxyz@{n}")
        assert found.group == atoms.info["group"]


def test_samples_have_the_neighbors_of_their_structure(store):
    for n in range(len(store)):
        sample, near = store.sample(n), neighbor_list(store.structure(n), store.schema.cutoff)
        for name in ("senders", "receivers", "shifts"):
            np.testing.assert_array_equal(getattr(sample, name), getattr(near, name))
    assert store.arrays.num_atoms.tolist() == [8] * 12
    assert store.arrays.num_edges[0] == len(ase_neighbor_list("i", store.structure(0).to_atoms(), 5.0))


def test_schema_says_what_the_store_holds(store):
    schema = store.schema
    assert schema.symbols == ("Ni", "Cu")
    assert (schema.cutoff, schema.title, schema.branches) == (5.0, "EMT-labeled", ("main",))
    assert {name: (label.level, label.shape, label.unit) for name, label in schema.labels.items()} == {
        "energy": ("graph", (), "eV"),
        "forces": ("node", (3,), "eV/A"),
        "stress": ("graph", (3, 3), "eV/A^3"),
        "magnetic_moments": ("node", (), "muB"),
    }
    assert MaterialsSchema.from_dict(schema.to_dict()) == schema
    assert schema.element_index(torch.tensor([29, 28, 28, 13])).tolist() == [1, 0, 0, -1]
    with pytest.raises(DataError, match="here: the model does not know Al; it knows Ni, Cu"):
        schema.check_elements([28, 13], "here")


def test_counts_are_read_without_the_payload(store):
    fresh = MaterialsStore.open(store.path)
    fresh.arrays.num_atoms, fresh.arrays.num_edges  # noqa: B018
    read = set(fresh.arrays.__dict__) - {"folder", "label_specs"}
    assert "senders" not in read
    assert "atomic_numbers" not in read


def test_a_store_travels_to_workers_without_its_arrays(store):
    store.sample(0)
    assert len(pickle.dumps(store)) < 10_000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).sample(3).positions, store.sample(3).positions)


def test_statistics_are_those_of_the_training_split(store, frames):
    train = store.indices("train")
    statistics, mine = store.statistics, [frames[n] for n in train]
    counts = np.array([[(a.numbers == z).sum() for z in store.schema.elements] for a in mine])
    energies = np.array([a.get_potential_energy() for a in mine])
    references = np.linalg.lstsq(counts / 8, energies / 8, rcond=None)[0]
    np.testing.assert_allclose(statistics.references[0], references, atol=1e-6)
    residuals = (energies - counts @ references) / 8
    np.testing.assert_allclose(statistics.energy_std, residuals.std(), rtol=1e-5)
    forces = np.concatenate([a.get_forces() for a in mine if "forces" in a.calc.results])
    np.testing.assert_allclose(statistics.force_rms, np.sqrt((forces**2).mean()), rtol=1e-6)
    stress = np.stack([a.get_stress(voigt=False) for a in mine if "stress" in a.calc.results])
    np.testing.assert_allclose(statistics.moments["stress"][0], stress.mean(), rtol=1e-5)
    np.testing.assert_allclose(statistics.moments["stress"][1], stress.std(), rtol=1e-5)
    np.testing.assert_allclose(statistics.mean["energy"], energies.mean() / 8, rtol=1e-6)
    assert statistics.count["forces"] == sum("forces" in a.calc.results for a in mine)
    pairs = [ase_neighbor_list("ijd", a, 5.0) for a in mine]
    assert np.isclose(statistics.avg_num_neighbors, sum(len(i) for i, _, _ in pairs) / (8 * len(mine)))
    kinds = np.concatenate(
        [np.stack([a.numbers[i], a.numbers[j]]) for a, (i, j, _) in zip(mine, pairs, strict=True)], 1
    )
    distances = np.concatenate([d for _, _, d in pairs])
    for row, one in enumerate(store.schema.elements):
        for column, other in enumerate(store.schema.elements):
            shortest = distances[(kinds[0] == one) & (kinds[1] == other)].min()
            np.testing.assert_allclose(statistics.shortest[0, row, column], shortest, atol=1e-6)


def test_statistics_go_through_tensors(store):
    statistics = store.statistics
    again = MaterialsStatistics.from_tensors(statistics.to_tensors())
    assert again.to_tensors().keys() == statistics.to_tensors().keys()
    for name, tensor in statistics.to("cpu").to_tensors().items():
        assert torch.equal(again.to_tensors()[name], tensor)


def test_reference_energies_find_known_ones_and_stand_a_single_composition():
    def fitted(counts, energies):
        unknown = np.full((1, counts.shape[1]), np.nan)
        return fit_references(counts, energies, np.zeros(len(counts), dtype=int), unknown).free[0]

    counts = np.array([[8, 0, 0], [4, 4, 0], [0, 1, 7], [2, 3, 3]])
    np.testing.assert_allclose(fitted(counts, counts @ [-3.0, -5.0, 2.0]), [-3, -5, 2])
    np.testing.assert_allclose(fitted(np.array([[4, 4]]), np.array([-40.0])), [-5, -5])


def test_references_of_each_data_set_are_its_own(tmp_path):
    shifted = [relabeled(a, energy=a.get_potential_energy() - 100.0 * len(a)) for a in mixed_set(12)]
    one, other = extxyz(tmp_path / "a.extxyz", mixed_set(12)), extxyz(tmp_path / "b.extxyz", shifted)
    config = PrepareConfig(
        path={"pbe": one, "scan": other},
        out=str(tmp_path / "s"),
        split_by="group",
        splits=EVERYTHING,
        check_units=False,
    )
    store = MaterialsStore.open(prepare(config))
    assert store.schema.branches == ("pbe", "scan")
    references = store.statistics.references
    np.testing.assert_allclose(references[0] - references[1], 100.0, atol=1e-5)
    numbers = torch.tensor([29, 28])
    energies = store.statistics.reference_energy(numbers, store.schema.elements, torch.tensor([0, 1]))
    assert energies.tolist() == [references[0, 1], references[1, 0]]
    assert store.arrays.branch.tolist() == [0] * 12 + [1] * 12


EVERYTHING = {"train": 1.0, "valid": 0.0, "test": 0.0}


def test_batches_of_a_store_have_all_labels_with_masks(store):
    batch = collate([store.sample(0), store.sample(1), store.sample(2)], store.schema.labels)
    assert {name: mask.tolist() for name, mask in batch.masks.items()} == {
        "energy": [True, True, True],
        "forces": [True, True, False],
        "stress": [True, False, True],
        "magnetic_moments": [False, False, False],
    }


def test_growing_arrays_are_numpys_own(tmp_path):
    path = tmp_path / "a.npy"
    array = GrowingArray(path, "<f8", (3,))
    array.append(np.ones((2, 3)))
    array.extend_zeros(4)
    array.flush()
    np.testing.assert_array_equal(np.load(path), [[1] * 3] * 2 + [[0] * 3] * 2)
    array.append(np.full((5, 3), 2.0))  # what an interrupted run never noted
    array.close()
    again = GrowingArray(path, "<f8", (3,), rows=4)
    again.append(np.full((1, 3), 7.0))
    again.close()
    np.testing.assert_array_equal(np.load(path, mmap_mode="r")[-1], [7] * 3)
    assert np.load(path).shape == (5, 3)


def test_keys_tell_frames_apart():
    one = Structure.from_atoms(alloy(0))
    same = Structure.from_atoms(relabeled(alloy(0), energy=0.0))
    assert frame_key(one) == frame_key(same)
    moved = alloy(0)
    moved.positions[0, 0] += 1e-3
    swapped = alloy(0)
    swapped.numbers[0] = atomic_numbers["Pt"]
    assert len({frame_key(one), frame_key(Structure.from_atoms(moved)), frame_key(Structure.from_atoms(swapped))}) == 3


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda p: (p / "positions.npy").unlink(), "positions.npy: a part of the store is missing or damaged"),
        (lambda p: (p / "positions.npy").write_bytes(b"x" * 200), "positions.npy: a part of the store is missing"),
        (lambda p: np.save(p / "cell.npy", np.zeros((3, 3, 3))), "cell has 3 of 12 rows, the store is damaged"),
        (lambda p: (p / "store.json").unlink(), "no materials store; make one with: python scripts/prepare.py"),
        (lambda p: (p / "store.json").write_text('{"format": "sciml-materials-store", "version": 0}'), "of version 0"),
    ],
)
def test_a_damaged_store_says_so(store, tmp_path, harm, said):
    import shutil

    path = tmp_path / "copy"
    shutil.copytree(store.path, path)
    harm(path)
    with pytest.raises(DataError, match=said):
        MaterialsStore.open(path).sample(0)
