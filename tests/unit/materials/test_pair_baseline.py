"""Tests potentials of pairs or embedded atoms under the network: derivatives, the fit, and runs that carry them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from domains.materials.data.prepare import PrepareConfig, prepare
from domains.materials.data.samples import StructureSource
from domains.materials.data.store import MaterialsStore
from domains.materials.domain import MaterialsDomain
from domains.materials.inference.calculator import SciMLCalculator
from domains.materials.simulation.simulate import simulate
from domains.materials.simulation.simulate_config import SimulateConfig
from domains.materials.training import baseline_equations
from domains.materials.training.baseline_fit import fit_pair_baseline
from domains.materials.training.pair_baseline import (
    EMBEDDINGS,
    FUNCTIONS,
    PairBaseline,
    PairResult,
    bells,
    surroundings,
)
from domains.materials.training.task import MaterialsTask, MaterialsTaskConfig, strained
from sciml.core.config import build
from sciml.domain.protocol import FittedData
from sciml.nn.repulsion import ScreenedRepulsion
from sciml.run.loaded import read_fitted
from sciml.run.spec import spec_of_run

from .alloy_files import alloy, extxyz, relabeled

pytestmark = pytest.mark.filterwarnings("ignore::domains.materials.inference.calculator.OutsideTrainingSet")
PAIR, MEAM = "task.baseline=pair", "task.baseline=meam"


@pytest.fixture(scope="module")
def store(small_alloys, tmp_path_factory):
    out = tmp_path_factory.mktemp("pair") / "store"
    return MaterialsStore.open(prepare(PrepareConfig(path=str(small_alloys), out=str(out), cutoff=5.0)))


@pytest.fixture(scope="module", params=EMBEDDINGS)
def fitted(store, request):
    return fit_pair_baseline(store, 5.0, request.param)


def collated(trained, tested, indices):
    source = StructureSource(tested, indices, trained.schema.labels, dtype="float64")
    return source.collate([source.sample(n, None) for n in range(len(source))])


def judged(baseline, trained, tested, indices):
    """Errors of forces, and of energies about their references, of a potential of pairs alone."""
    statistics = replace(trained.statistics, pair=baseline.to_tensors())
    task = MaterialsTask(trained.schema, statistics, MaterialsTaskConfig())
    batch = collated(trained, tested, indices)
    pair = task._pair(batch, strained(batch, True)[2], True)
    atoms = pair.energies + statistics.reference_energy(batch.atomic_numbers, trained.schema.elements)
    energies = torch.zeros(batch.num_samples).double().index_add(0, batch.graph_index, atoms)
    misses = ((energies - batch.labels["energy"]) / batch.num_atoms).abs().mean()
    return (pair.forces(batch) - batch.labels["forces"]).abs().mean() / batch.labels["forces"].abs().mean(), misses


def test_it_explains_most_forces_of_structures_that_it_was_not_fitted_to(store, fitted):
    forces, energies = judged(fitted, store, store, store.indices("test"))
    assert forces < 0.2
    assert energies < 0.3 * float(store.statistics.energy_std)


def test_surroundings_explain_what_pairs_leave(store):
    pairs, atoms, directed = (fit_pair_baseline(store, 5.0, kind) for kind in EMBEDDINGS)
    assert directed.scale < atoms.scale < 0.85 * pairs.scale


def test_stresses_are_fitted_too(store, monkeypatch):
    batch = collated(store, store, store.indices("test"))
    volume = torch.linalg.det(batch.cell)[:, None, None]

    def missed(baseline):
        task = MaterialsTask(store.schema, replace(store.statistics, pair=baseline.to_tensors()), MaterialsTaskConfig())
        vectors = strained(batch, True)[2]
        virials = task.pair_result(batch, vectors).virials(vectors)
        stress = torch.zeros_like(batch.cell).index_add(0, batch.edge_graph, virials) / volume
        return float((stress - batch.labels["stress"]).abs().mean() / batch.labels["stress"].abs().mean())

    with_stresses = missed(fit_pair_baseline(store, 5.0, "meam"))
    monkeypatch.setattr(baseline_equations, "STRESS_WEIGHT", 0.0)
    assert with_stresses < 0.9 * missed(fit_pair_baseline(store, 5.0, "meam"))
    assert with_stresses < 0.1


def test_surroundings_are_the_same_however_they_are_turned_or_mirrored(store):
    batch = collated(store, store, store.indices("test")[:4])
    vectors = strained(batch, False)[2]
    turned = vectors @ torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    one, other = (
        surroundings(edges, torch.ones(len(edges)).double(), 5.0, batch, EMBEDDINGS["meam"])
        for edges in (vectors, turned)
    )
    assert (one.std(0) > 1e-6).all()
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_it_is_fitted_to_what_the_repulsion_leaves(small_alloys, tmp_path):
    source = str(simulate(build(SimulateConfig, {
        "out": str(tmp_path / "hot.extxyz"), "families": ["bcc:MoW"], "supercells": [[2, 2, 2]], "count": 40,
        "rattle": 0.3,
    })))  # fmt: skip
    store = MaterialsStore.open(prepare(PrepareConfig(path=source, out=str(tmp_path / "store"), check_units=False)))
    wall = ScreenedRepulsion(5.0)
    alone, rest = (fit_pair_baseline(store, 5.0, "pair", repulsion=repulsion) for repulsion in (None, wall))
    batch = collated(store, store, store.indices("test"))
    vectors = strained(batch, True)[2]
    energies = wall(batch.atomic_numbers, vectors, batch.senders, batch.receivers)
    repelled = PairResult(energies, torch.autograd.grad(energies.sum(), vectors, retain_graph=True)[0]).forces(batch)
    assert repelled.abs().mean() > 0.02 * batch.labels["forces"].abs().mean()

    def miss(baseline, beside):
        task = MaterialsTask(store.schema, replace(store.statistics, pair=baseline.to_tensors()), MaterialsTaskConfig())
        return float((task.pair_result(batch, vectors).forces(batch) + beside - batch.labels["forces"]).abs().mean())

    assert miss(rest, repelled) < 1.1 * miss(alone, 0.0) < 0.8 * miss(alone, repelled)


def test_pairs_of_many_elements_have_no_corrections(store, monkeypatch):
    whole = fit_pair_baseline(store, 5.0, "pair")
    assert whole.corrections.abs().max() > 0
    monkeypatch.setattr(baseline_equations, "MOST_COEFFICIENTS", FUNCTIONS * len(whole.elements))
    least = fit_pair_baseline(store, 5.0, "pair")
    assert not least.corrections.any()
    assert whole.scale < least.scale < 3 * whole.scale


def test_hot_alloys_follow_from_hot_metals_and_cold_alloys(tmp_path):
    def alloys(name, **options):
        values = {
            "out": str(tmp_path / f"{name}.extxyz"),
            "families": ["bcc:MoW"],
            "supercells": [[2, 2, 2]],
            **options,
        }
        return simulate(build(SimulateConfig, values))

    hot = alloys("hot", count=40, orders=[1], rattle=0.25)
    cold = alloys("cold", count=40, orders=[2], rattle=0.02, seed=1)
    test = alloys("test", count=8, orders=[2], rattle=0.25, seed=2)
    splits = {"train": 1.0, "valid": 0.0, "test": 0.0}

    def stored(name, path):
        config = PrepareConfig(path=path, out=str(tmp_path / name), splits=splits, check_units=False)
        return MaterialsStore.open(prepare(config))

    trained, tested = stored("train", [str(hot), str(cold)]), stored("tested", str(test))
    for kind in EMBEDDINGS:
        forces, _ = judged(fit_pair_baseline(trained, 5.0, kind), trained, tested, np.arange(8))
        assert forces < 0.2


@pytest.mark.parametrize("baseline", [PAIR, MEAM])
def test_derivatives_are_those_of_the_energy(small_run, baseline):
    atoms = alloy(5)
    atoms.calc = SciMLCalculator(small_run(baseline).path)
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    assert np.abs(forces).max() > 0.5
    for atom, axis in ((0, 0), (5, 2)):
        energies = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
        assert forces[atom, axis] == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-6)
    energies = []
    for step in (1e-5, -1e-5):
        strain = np.eye(3)
        strain[0, 1] = strain[1, 0] = step
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    assert 2 * stress[0, 1] * atoms.get_volume() == pytest.approx((energies[0] - energies[1]) / 2e-5, abs=1e-5)
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(atoms.get_stresses().sum(0), atoms.get_stress(), atol=1e-9)


def test_a_run_keeps_it_and_a_warm_start_takes_it_over(small_run):
    folder = small_run(MEAM)
    spec = spec_of_run(folder)
    own = read_fitted(folder, spec)
    assert own.statistics.pair["elements"].shape == (2, FUNCTIONS)
    plain = read_fitted(small_run(), spec_of_run(small_run()))
    assert plain.statistics.pair == {}
    schema = replace(own.schema, elements=(28, 29, 47))
    statistics = replace(
        own.statistics,
        pair={},
        references=torch.zeros(1, 3).double(),
        element_counts=torch.zeros(3).double(),
        shortest=torch.zeros(3, 3).double(),
        bonding=None,
    )
    kept = MaterialsDomain().warm_start(FittedData(schema, statistics), own).statistics.pair
    torch.testing.assert_close(kept["elements"][:2], own.statistics.pair["elements"])
    torch.testing.assert_close(kept["corrections"][:2, :2], own.statistics.pair["corrections"])
    torch.testing.assert_close(kept["embedding"][2], own.statistics.pair["embedding"][1])
    torch.testing.assert_close(kept["elements"][2], own.statistics.pair["elements"][1])  # silver as copper
    assert MaterialsDomain().warm_start(FittedData(schema, statistics), plain).statistics.pair == {}


def test_runs_of_before_there_were_embedded_atoms_open(fitted):
    parts = {name: value for name, value in fitted.to_tensors().items() if name != "embedding"}
    assert PairBaseline.from_tensors(parts).embedding.shape == (len(fitted.elements), 0)


def test_it_ends_smoothly_at_its_reach(fitted):
    assert float(fitted.reach) == 5.0
    lengths = torch.linspace(4.9, 5.1, 201, dtype=torch.float64)
    values = bells(lengths, torch.ones_like(lengths), 5.0) @ fitted.elements[0]
    assert not values[lengths >= 5.0].any()
    slopes = values.diff() / 1e-3
    assert slopes.diff().abs().max() / 1e-3 < 1.0


def test_data_sets_with_other_zeros_of_energy_give_the_same_potential(tmp_path):
    """Two halves of one set, then with energies of the second moved by some eV an atom of each element."""
    frames = [alloy(n, (("Cu",), ("Ni",), ("Cu", "Ni"))[n % 3]) for n in range(60)]
    moved = [
        relabeled(atoms, energy=atoms.get_potential_energy() + float(np.select(
            [atoms.numbers == 28, atoms.numbers == 29], [-41000.0, -45.0]).sum()))
        for atoms in frames[30:]
    ]  # fmt: skip
    first, splits = extxyz(tmp_path / "a.extxyz", frames[:30]), {"train": 1.0, "valid": 0.0, "test": 0.0}
    found = []
    for name, second in (("same", frames[30:]), ("moved", moved)):
        path = {"a": first, "b": extxyz(tmp_path / f"{name}.extxyz", second)}
        config = PrepareConfig(path=path, out=str(tmp_path / name), splits=splits, check_units=False)
        store = MaterialsStore.open(prepare(config))
        found.append((store, fit_pair_baseline(store, 5.0, "eam")))
    (same, expected), (other, baseline) = found
    torch.testing.assert_close(baseline.embedding, expected.embedding, rtol=1e-3, atol=1e-4)
    assert baseline.shift.shape == (2, 2)
    forces, _ = judged(baseline, other, same, np.arange(60))
    assert forces < 0.2


def test_few_forces_give_none(store):
    class Few:
        schema, arrays = store.schema, store.arrays

        @staticmethod
        def indices(split):
            return store.indices(split)[:5]

    assert fit_pair_baseline(Few(), 5.0, "eam") is None
    assert isinstance(fit_pair_baseline(store, 4.0, "eam"), PairBaseline)
