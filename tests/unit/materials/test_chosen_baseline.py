"""Tests whether a fitted potential is learned from where nothing is said: where it explains much of the forces."""

from __future__ import annotations

import numpy as np
import pytest
from ase.io import read, write

from domains.materials.data.prepare import PrepareConfig, prepare
from domains.materials.data.store import MaterialsStore
from domains.materials.simulation.simulate import simulate
from domains.materials.simulation.simulate_config import SimulateConfig
from domains.materials.training import baseline_fit
from domains.materials.training.baseline_fit import fit_pair_baseline, left_by_baseline
from domains.materials.training.pair_baseline import PairBaseline
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.run.compose import compose
from sciml.run.spec import RunSpec, follow_data


@pytest.fixture(scope="module")
def alloys(tmp_path_factory):
    out = tmp_path_factory.mktemp("alloys") / "alloys.extxyz"
    return simulate(build(SimulateConfig, {"out": str(out), "count": 130, "families": ["bcc:MoW"], "rattle": 0.1}))


@pytest.fixture(scope="module")
def random_forces(alloys, tmp_path_factory):
    """Returns a file of the same structures whose forces are noise."""
    generator = np.random.default_rng(0)
    structures = read(alloys, ":")
    for atoms in structures:
        atoms.calc.results = {"energy": 0.0, "forces": generator.normal(size=(len(atoms), 3))}
    out = tmp_path_factory.mktemp("noise") / "noise.extxyz"
    write(out, structures)
    return out


def chosen(path, tmp_path, *arguments, source=None):
    values = [f"data.path={path}", f"data.cache={tmp_path}", "data.check_units=false", *arguments]
    spec = RunSpec.build(compose("train", ["domain=materials", *values]).config)
    spec, sentence = follow_data(spec, source)
    return spec, sentence


def test_own_data_get_a_potential_that_explains_their_forces(alloys, tmp_path):
    spec, sentence = chosen(alloys, tmp_path)
    assert spec.task.baseline == "meam"
    assert "explains" in sentence
    assert "task.baseline=meam" in sentence


def test_forces_that_no_potential_explains_get_none(random_forces, tmp_path):
    spec, sentence = chosen(random_forces, tmp_path)
    assert spec.task.baseline == "none"
    assert "task.baseline=none: a potential of embedded atoms explains 1" in sentence


@pytest.mark.parametrize(
    "arguments", [["data.labeled_by=eam"], ["task.baseline=none"], ["task.targets.energy.forces_weight=0"]]
)
def test_no_potential_is_judged_where_none_is_wanted(arguments, alloys, tmp_path):
    more = ["task.targets.energy.stress_weight=0"] if "forces_weight" in arguments[0] else []
    spec, sentence = chosen(alloys, tmp_path, *arguments, *more)
    assert spec.task.baseline == "none"
    assert "explains" not in sentence


@pytest.mark.parametrize(
    ("arguments", "source", "says"),
    [
        (
            ["data.splits={train: 0.1, valid: 0.45, test: 0.45}"],
            None,
            "to 20 training structures .* here are 13",
        ),
        (["data.references={Mo: -1.0, W: -2.0}"], None, "beside exact energies of free atoms"),
        ([], "none", "were trained without a fitted potential"),
        ([], "pair", "were trained beside pair"),
    ],
)
def test_a_potential_that_is_asked_for_and_cannot_be_is_refused(arguments, source, says, alloys, tmp_path):
    before = None if source is None else chosen(alloys, tmp_path, f"task.baseline={source}")[0]
    with pytest.raises(ConfigError, match=f"task.baseline: .*{says}"):
        chosen(alloys, tmp_path, "task.baseline=meam", *arguments, source=before)


def test_the_default_data_say_what_labeled_them():
    assert RunSpec.build(compose("train", ["domain=materials"]).config).data.labeled_by == "eam"
    own = compose("train", ["domain=materials", "data.path=mine.extxyz"]).config
    assert RunSpec.build(own).data.labeled_by == "unknown"


def test_weights_keep_what_they_were_trained_beside(alloys, tmp_path):
    before, _ = chosen(alloys, tmp_path, "task.baseline=pair")
    after, sentence = chosen(alloys, tmp_path, source=before)
    assert after.task.baseline == "pair"
    assert "explains" not in sentence


def test_the_judgment_is_that_of_structures_that_were_not_fitted_to(alloys, tmp_path, monkeypatch):
    config = PrepareConfig(
        path=str(alloys), out=str(tmp_path / "store"), splits={"train": 0.8, "valid": 0.0, "test": 0.2}
    )
    store = MaterialsStore.open(prepare(config))
    left = left_by_baseline(store, 5.0, "meam")
    fitted = fit_pair_baseline(store, 5.0, "meam")
    assert isinstance(fitted, PairBaseline)
    forces = np.concatenate([store.sample(int(n)).labels["forces"] for n in store.indices("train")])
    rms = float(np.sqrt((forces**2).mean()))
    assert float(fitted.scale) / rms == pytest.approx(left, rel=0.5)
    monkeypatch.setattr(baseline_fit, "JUDGING_EDGES", 100)
    assert left_by_baseline(store, 5.0, "meam") is None
