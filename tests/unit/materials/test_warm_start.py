"""Going on from another model's weights keeps its units; a few structures beside many are drawn as often as wanted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domains.materials.data.samples import MaterialsDataConfig, branch_numbers, in_shares, open_or_prepare
from domains.materials.data.schema import Label, MaterialsSchema, MaterialsStatistics
from domains.materials.training.warm_start import warm_start
from sciml.core.errors import ConfigError, DataError
from sciml.domain.protocol import FittedData
from sciml.run.loaded import load_run
from sciml.testing.sessions import start_session
from tests.unit.materials.alloy_files import alloy, extxyz

ENERGY = {"energy": Label("graph", (), "eV"), "forces": Label("node", (3,), "eV/A")}


def trained(elements, references, rms, neighbors, shortest, branches=("main",)) -> FittedData:
    def number(value):
        return torch.tensor(value, dtype=torch.float64)

    values = {"energy": number(rms), "forces": number(rms)}
    return FittedData(
        MaterialsSchema(elements, 5.0, ENERGY, branches, avg_num_neighbors=neighbors),
        MaterialsStatistics(
            references=number(references),
            energy_std=number(0.1),
            avg_num_neighbors=number(neighbors),
            element_counts=torch.ones(len(elements), dtype=torch.float64),
            shortest=torch.full((len(elements),) * 2, shortest, dtype=torch.float64),
            mean=values,
            std=values,
            rms=values,
            count=values,
        ),
    )


def test_units_and_elements_of_the_older_model_are_kept():
    older = trained((28, 29), [[-4.0, -3.0]], rms=0.7, neighbors=40.0, shortest=2.0)
    new = trained((29, 79), [[-3.5, 0.0], [-9.0, -8.0]], 2.0, 55.0, 1.5, branches=("old", "mine"))
    found = warm_start(new, older)
    assert found.schema.elements == (28, 29, 79)
    assert found.schema.avg_num_neighbors == found.statistics.avg_num_neighbors == 40.0
    assert found.statistics.force_rms == 0.7
    # an element that a data set lacks has the older model's reference, or none
    assert found.statistics.references.tolist() == [[-4.0, -3.5, 0.0], [-4.0, -9.0, -8.0]]
    # nickel is in no data set; copper and gold are known where there are some of them
    assert found.statistics.element_counts.tolist() == [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    assert found.statistics.shortest[0].tolist() == [[2.0, np.inf, np.inf], [np.inf, 1.5, np.inf], [np.inf] * 3]
    assert found.statistics.shortest[1].tolist() == [[2.0, np.inf, np.inf], [np.inf, 1.5, 1.5], [np.inf, 1.5, 1.5]]


def test_a_data_set_of_the_older_model_keeps_what_was_known_of_it():
    older = trained((28, 29), [[-4.0, -3.0]], rms=0.7, neighbors=40.0, shortest=2.0)
    found = warm_start(trained((29, 79), [[-3.5, -8.0]], 2.0, 55.0, 1.5), older)
    assert found.statistics.element_counts.tolist() == [[1.0, 2.0, 1.0]]
    expected = [[2.0, 2.0, np.inf], [2.0, 1.5, 1.5], [np.inf, 1.5, 1.5]]
    assert found.statistics.shortest[0].tolist() == expected


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Ten gold-copper structures."""
    folder = tmp_path_factory.mktemp("mine")
    return extxyz(folder / "mine.extxyz", [alloy(n, ("Cu", "Au")) for n in range(10)])


def test_weights_give_the_same_forces_in_the_new_run(small_run, small_values, small_alloys, mine):
    source = small_run()
    paths = f"data.path={{old: {small_alloys}, mine: {mine}}}"
    values = small_values(paths, "data.shares={old: 0.5, mine: 0.5}", f"init_from={source.path}")
    training = start_session(values)
    older = load_run(source)
    batch = older.splits.test.collate([older.splits.test.sample(n, np.random.default_rng(0)) for n in range(4)])
    expected = older.task.predict(older.model, batch).values
    found = training.trainer.task.predict(training.trainer.engine.model.module, batch).values
    assert expected["forces"].abs().max() > 0.01
    for name in ("forces", "stress"):
        torch.testing.assert_close(found[name], expected[name])
    assert training.trainer.task.schema.symbols == ("Ni", "Cu", "Au")
    rows = training.trainer.engine.weights()["encoder.elements.weight"]
    torch.testing.assert_close(rows[:2], older.model.encoder.elements.weight.detach())
    assert torch.equal(rows[2], rows[1])  # gold starts as copper
    drawn = [training.trainer.splits.train.sample(n, None).branch for n in range(len(training.trainer.splits.train))]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.02)


def test_shares_repeat_the_rarer_set(small_alloys, mine, tmp_path):
    path = {"old": str(small_alloys), "mine": mine}
    store = open_or_prepare(MaterialsDataConfig(path=path, cache=str(tmp_path)))
    train = store.indices("train")
    assert in_shares(store, train, {}) is train
    found = in_shares(store, train, {"old": 0.75, "mine": 0.25})
    assert set(in_shares(store, train, {"old": 1.0, "mine": 0.0})) == set(train[store.arrays.branch[train] == 0])
    branch = store.arrays.branch[found]
    assert set(found) == set(train)
    assert (branch == 0).sum() == (store.arrays.branch[train] == 0).sum()
    assert np.mean(branch) == pytest.approx(0.25, abs=0.02)


def test_data_sets_find_their_heads_by_name():
    assert branch_numbers(["main"], ["any"]) == [0]
    assert branch_numbers(["old", "mine"], ["mine"]) == [1]
    with pytest.raises(ConfigError, match=r"data.path: the model knows no data set 'main'; .*data.path={old: FILE}"):
        branch_numbers(["old", "mine"], ["main"])


def test_old_structures_can_be_tested_on_by_a_model_that_kept_their_elements(
    small_run, small_values, small_alloys, mine
):
    source = small_run()
    values = small_values(f"data.path={mine}", f"data.test_path={small_alloys}", "run=gold", f"init_from={source.path}")
    with pytest.raises(DataError, match="the model does not know Ni"):  # before anything is kept, gold and copper
        start_session(values)
    values = small_values(f"data.path={mine}", f"init_from={source.path}")
    training = start_session(values)
    training.trainer.fit()
    opened = load_run(training.folder, overrides={"data.test_path": str(small_alloys)})
    assert len(opened.splits.test) == 60
    batch = opened.splits.test.collate([opened.splits.test.sample(n, np.random.default_rng(0)) for n in range(2)])
    assert opened.task.predict(opened.model, batch).values["forces"].isfinite().all()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.path={old: a.xyz, mine: ''}",), "data.path.mine: no data are named; e.g. data.path.mine="),
        (("data.path={old: a.xyz, mine: b.xyz}", "data.shares={old: 1.0}"), "data.shares: mine has no share"),
        (("data.shares={other: 1.0}",), "data.shares must be one of main, got 'other'"),
        (("data.shares={main: -1}",), "data.shares.main must be at least 0, got -1"),
        (("data.shares={main: 0}",), "data.shares: nothing is left to train on"),
    ],
)
def test_shares_that_make_no_sense_are_refused(small_values, overrides, said):
    with pytest.raises(ConfigError, match=said):
        start_session(small_values(*overrides))
