import numpy as np
import pytest
import torch

from domains.materials.data.prepare import PrepareConfig, prepare
from domains.materials.data.samples import (
    MaterialsDataConfig,
    StructureSource,
    held_out_test,
    open_or_prepare,
    open_test,
)
from domains.materials.data.store import MaterialsStore
from sciml.core.config import build
from sciml.core.errors import ConfigError, DataError
from sciml.data.loader import ShuffledSampler, evaluation_batches, training_batches
from sciml.data.source import CostedSource
from sciml.run.compose import compose

from .alloy_files import alloy, extxyz, mixed_set

SPLITS = {"train": 0.6, "valid": 0.2, "test": 0.2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    frames = [alloy(n, repeat=(1 + n % 3, 1, 1)) for n in range(20)]
    extxyz(folder / "set.extxyz", frames)
    extxyz(folder / "other.extxyz", [alloy(100), alloy(101), *frames[:20]])
    extxyz(folder / "foreign.extxyz", [alloy(0, ("Al", "Cu"))])
    return folder


def config(files, **options):
    defaults = {"path": str(files / "set.extxyz"), "cache": str(files / "cache"), "splits": SPLITS}
    return MaterialsDataConfig(**{**defaults, **options})


@pytest.fixture(scope="module")
def store(files):
    return open_or_prepare(config(files))


def test_batches_come_from_the_split_in_physical_units(store):
    source = StructureSource.of_split(store, "valid")
    batch = next(evaluation_batches(source, batch_size=4, seed=0))
    expected = [store.structure(n) for n in store.indices("valid")]
    np.testing.assert_array_equal(batch.atomic_numbers, np.concatenate([s.atomic_numbers for s in expected]))
    energies = torch.tensor([float(s.labels["energy"]) for s in expected], dtype=torch.float64)
    torch.testing.assert_close(batch.labels["energy"], energies)
    assert batch.positions.dtype == torch.float32


def test_float64_is_exact(store):
    source = StructureSource.of_split(store, "train", dtype="float64")
    batch = source.collate([source.sample(0, np.random.default_rng(0))])
    np.testing.assert_array_equal(batch.positions, store.structure(store.indices("train")[0]).positions)


def test_costs_grow_with_atoms_and_edges(store):
    source = StructureSource.of_split(store, "train")
    assert isinstance(source, CostedSource)
    arrays = store.arrays
    for n, index in enumerate(store.indices("train")):
        assert source.costs()[n] == 10 * arrays.num_atoms[index] + arrays.num_edges[index]


def test_micro_batches_of_all_ranks_cost_alike_and_make_the_same_step(store):
    source = StructureSource.of_split(store, "train")
    stream = ShuffledSampler(len(source), 8, seed=1)

    def step(num_ranks):
        options = {"start_step": 0, "stop_step": 1, "micro_batch_size": 2, "num_ranks": num_ranks}
        return [b for rank in range(num_ranks) for b in training_batches(source, stream, rank=rank, **options)]

    whole = sorted(float(e) for batch in step(1) for e in batch.labels["energy"])
    for num_ranks in (2, 4):
        batches = step(num_ranks)
        assert len(batches) == 4
        assert sorted(float(e) for batch in batches for e in batch.labels["energy"]) == whole
        assert max(b.num_edges for b in batches) <= 1.5 * min(b.num_edges for b in batches)


def test_a_source_is_prepared_once(files, store):
    again = open_or_prepare(config(files))
    assert again.path == store.path
    assert open_or_prepare(config(files, cutoff=4.0)).path != store.path


def test_a_finished_store_keeps_its_choices(files, store):
    assert len(open_or_prepare(config(files, path=str(store.path)))) == 20
    with pytest.raises(ConfigError, match=r"data.cutoff: .* is a finished store and keeps its own cutoff"):
        open_or_prepare(config(files, path=str(store.path), cutoff=4.0))


def test_a_finished_store_is_trained_on_as_prepare_says(store):
    """The user's store need not have the title of the default set."""
    typed = compose("train", ["domain=materials", f"data.path={store.path}"]).config["data"]
    assert open_or_prepare(build(MaterialsDataConfig, typed)).schema.title == store.schema.title


def test_another_file_is_tested_on_without_frames_that_were_trained_on(files, store, capsys):
    test = open_test(config(files, test_path=str(files / "other.extxyz")), store, store.schema)
    source = held_out_test(store, test)
    capsys.readouterr()
    seen = len(store.indices("train")) + len(store.indices("valid"))
    assert len(source) == len(test) - seen
    names = [test.name(n).rsplit("@")[1] for n in source.indices]
    assert names[:2] == ["0", "1"]
    assert source.labels == store.schema.labels
    assert open_test(config(files), store, store.schema) is None


def test_a_test_file_must_fit_the_training_data(files, store):
    with pytest.raises(DataError, match=r"foreign.extxyz: the model does not know Al; it knows Ni, Cu"):
        open_test(config(files, test_path=str(files / "foreign.extxyz")), store, store.schema)
    out = str(files / "wide")
    prepare(PrepareConfig(path=str(files / "other.extxyz"), out=out, cutoff=6.0))
    with pytest.raises(ConfigError, match=r"data.test_path: its neighbors reach 6 A"):
        open_test(config(files, test_path=out), store, store.schema)


def test_a_store_for_testing_alone_has_no_statistics(files, store):
    test = open_test(config(files, test_path=str(files / "other.extxyz")), store, store.schema)
    with pytest.raises(DataError, match="it can only be a test set"):
        _ = MaterialsStore.open(test.path).statistics


def test_wrong_options_are_refused_with_their_key():
    with pytest.raises(ConfigError, match=r"data.dtype must be one of float32, float64, got 'float16'"):
        MaterialsDataConfig(dtype="float16")
    with pytest.raises(ConfigError, match=r"data.labels.energy.unit"):
        MaterialsDataConfig(labels={"energy": {"unit": "erg"}})
    with pytest.raises(ConfigError, match=r"data.splits"):
        MaterialsDataConfig(splits={"train": 2.0, "valid": 0, "test": 0})


def test_names_and_groups_of_a_split_are_known(store):
    train = store.indices("train")
    assert [store.name(n).rsplit("@")[1] for n in train] == [str(n) for n in train]
    assert {store.group(n) for n in train} == {"set"}


def test_sets_of_groups_are_kept_apart(tmp_path):
    path = extxyz(tmp_path / "set.extxyz", mixed_set(12))
    splits = {"train": 0.7, "valid": 0.3, "test": ["system:Cu-Ni"]}
    store = MaterialsStore.open(prepare(PrepareConfig(path=path, out=str(tmp_path / "s"), splits=splits)))
    assert {store.group(n) for n in store.indices("test")} == {"Cu-Ni"}
    assert len(store.indices("train")) + len(store.indices("valid")) == 8
