"""Forces and stress are the energy's derivatives; losses and scores are what they are by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from domains.materials.data.batch import GraphSample, collate
from domains.materials.data.neighbors import neighbor_list
from domains.materials.data.schema import Label, MaterialsSchema, MaterialsStatistics
from domains.materials.data.structure import Structure
from domains.materials.training.heads import TargetConfig
from domains.materials.training.losses import LabelLosses
from domains.materials.training.metrics import MaterialsMetrics
from domains.materials.training.potential import MaterialsGNN
from domains.materials.training.task import MaterialsTask, MaterialsTaskConfig
from sciml.core.errors import ConfigError
from sciml.domain.protocol import Prediction
from sciml.models.gnn import GNNConfig

CUTOFF = 4.0
LABELS = {
    "energy": Label("graph", (), "eV"),
    "forces": Label("node", (3,), "eV/A"),
    "stress": Label("graph", (3, 3), "eV/A^3"),
    "hardness": Label("graph", (), "GPa"),
}
SCHEMA = MaterialsSchema((28, 29), CUTOFF, LABELS, avg_num_neighbors=12.0)


def statistics() -> MaterialsStatistics:
    def number(value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=torch.float64)

    values = {name: number(v) for name, v in {"energy": 0.2, "forces": 0.7, "stress": 0.05, "hardness": 2.0}.items()}
    return MaterialsStatistics(
        references=torch.tensor([[-4.5, -3.5]], dtype=torch.float64),
        energy_std=number(0.2),
        avg_num_neighbors=number(12.0),
        element_counts=torch.ones(2, dtype=torch.float64),
        shortest=torch.full((2, 2), 2.0, dtype=torch.float64),
        mean=dict.fromkeys(values, number(0.0)) | {"hardness": number(5.0)},
        std=values,
        rms=values,
        count=dict.fromkeys(values, number(10.0)),
    )


def structure(seed: int, **labels: np.ndarray) -> Structure:
    atoms = bulk("Cu", "fcc", 3.6, cubic=True)
    atoms.numbers[seed % 4] = 28
    atoms.rattle(0.1, seed=seed)
    return Structure.from_atoms(atoms, **labels)


def batch_of(structures):
    samples = []
    for one in structures:
        found = neighbor_list(one, CUTOFF)
        samples.append(
            GraphSample(
                one.atomic_numbers,
                one.positions,
                one.cell,
                one.pbc,
                found.senders,
                found.receivers,
                found.shifts,
                labels=one.labels,
            )
        )
    return collate(samples, LABELS, torch.float64)


def model_of(targets) -> MaterialsGNN:
    torch.manual_seed(0)
    config = GNNConfig(num_channels=8, num_layers=2, cutoff=CUTOFF, num_radial=4)
    model = MaterialsGNN(config, SCHEMA.elements, targets, branches=SCHEMA.branches, avg_num_neighbors=12.0).double()
    with torch.no_grad():
        for head in model.heads.values():
            for out in head.out:
                out.weight.normal_(0, 0.5)
    return model


POTENTIAL = MaterialsTaskConfig()


def test_forces_and_stress_are_derivatives_of_the_energy():
    task, model = MaterialsTask(SCHEMA, statistics(), POTENTIAL), model_of(POTENTIAL.targets)
    batch = batch_of([structure(0), structure(1)])
    (found,) = task.evaluate(model, batch, create_graph=False)
    h = 1e-5

    def energy(**changes):
        return task.evaluate(model, replace(batch, **changes), create_graph=False)[0]["energy"]

    for atom, axis in ((0, 0), (3, 2), (6, 1)):
        step = torch.zeros_like(batch.positions)
        step[atom, axis] = h
        slope = (energy(positions=batch.positions + step) - energy(positions=batch.positions - step)).sum() / (2 * h)
        assert found["forces"][atom, axis].item() == pytest.approx(-slope.item(), abs=1e-7)
    for row, column in ((0, 0), (1, 2)):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[row, column] += h / 2
        strain[column, row] += h / 2
        ends = []
        for sign in (1, -1):
            turn = torch.eye(3, dtype=torch.float64) + sign * strain
            ends.append(energy(positions=batch.positions @ turn, cell=batch.cell @ turn))
        volume = torch.linalg.det(batch.cell)
        expected = (ends[0] - ends[1]) / (2 * h) / volume
        torch.testing.assert_close(found["stress"][:, row, column], expected, rtol=1e-6, atol=1e-9)


def test_a_loss_is_the_mean_over_structures_and_leaves_out_what_is_not_known():
    task, model = MaterialsTask(SCHEMA, statistics(), POTENTIAL), model_of(POTENTIAL.targets)
    known = structure(0, energy=np.array(-14.0), forces=np.ones((4, 3)), stress=np.eye(3) * 0.01)
    bare = structure(1, energy=np.array(-15.0))
    both = task.loss(model, batch_of([known, bare]))
    one, other = (task.loss(model, batch_of([s])) for s in (known, bare))
    assert both.weight == 2
    torch.testing.assert_close(both.loss, (one.loss + other.loss) / 2)
    assert other.parts["forces"] == 0
    predicted = task.predict(model, batch_of([bare])).values["energy"]
    per_atom = (predicted.double() + 15.0).abs() / 4 / 0.7
    expected = torch.where(per_atom < 1, 0.5 * per_atom**2, per_atom - 0.5)
    torch.testing.assert_close(other.parts["energy"], expected[0], rtol=1e-5, atol=0)


def test_a_gaussian_head_learns_its_spread_by_likelihood():
    targets = {"hardness": TargetConfig(kind="graph", gaussian=True)}
    task, model = MaterialsTask(SCHEMA, statistics(), MaterialsTaskConfig(targets)), model_of(targets)
    batch = batch_of([structure(0, hardness=np.array(7.0)), structure(1, hardness=np.array(4.0))])
    found = task.predict(model, batch).values
    error = (found["hardness"] - batch.labels["hardness"]) / 2.0
    spread = found["hardness_std"] / 2.0
    expected = (0.5 * (error / spread).square() + spread.log()).mean()
    torch.testing.assert_close(task.loss(model, batch).loss.float(), expected.float(), rtol=1e-5, atol=1e-6)
    assert not task.needs_double_backward


def test_scores_are_in_the_units_that_people_think_in():
    batch = batch_of([structure(0, energy=np.array(-16.0), forces=np.zeros((4, 3))), structure(1)])
    metrics = MaterialsMetrics(SCHEMA, POTENTIAL.targets)
    values = {"energy": batch.labels["energy"] + 0.4, "forces": batch.labels["forces"] + 0.02}
    metrics.update(Prediction(values), batch)
    scores = {(s.variable, s.metric.name): (s.value, s.unit) for s in metrics.compute()}
    assert scores["energy", "mae"] == (pytest.approx(100.0), "meV/atom")
    assert scores["forces", "mae"] == (pytest.approx(20.0), "meV/A")
    assert scores["forces[Ni]", "mae_by_element"][0] == pytest.approx(20.0)
    assert scores["energy[order 2]", "mae_by_order"][0] == pytest.approx(100.0)
    assert not any(variable.startswith("stress") for variable, _ in scores)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ({}, "task.targets: there is nothing to learn"),
        ({"work": TargetConfig(kind="energy")}, "work cannot all be potential energies"),
        ({"energy": TargetConfig(kind="graph")}, "task.targets.energy.kind: an energy is a sum over atoms; energy"),
    ],
)
def test_targets_that_make_no_sense_are_refused(targets, said):
    with pytest.raises(ConfigError, match=said):
        MaterialsTaskConfig(targets)


def test_an_energy_may_go_without_forces():
    targets = {"energy": TargetConfig(kind="energy", forces_weight=0, stress_weight=0)}
    task, model = MaterialsTask(SCHEMA, statistics(), MaterialsTaskConfig(targets)), model_of(targets)
    assert not task.needs_double_backward
    with torch.no_grad():
        found = task.predict(model, batch_of([structure(0)])).values
    assert set(found) == {"energy"}


def test_a_potential_energy_has_no_variance_of_its_own():
    with pytest.raises(ConfigError, match=r"task.targets.gaussian: .*no variance"):
        TargetConfig(kind="energy", gaussian=True)


def test_late_weights_hold_late_in_the_training_alone():
    targets = {"energy": TargetConfig(kind="energy", weight=2.0, late_weight=20.0)}
    task = MaterialsTask(SCHEMA, statistics(), MaterialsTaskConfig(targets=targets, late_from=0.5))
    labels = {"energy": np.asarray(-15.0), "forces": np.full((4, 3), 0.1), "stress": np.zeros((3, 3))}
    model, batch = model_of(targets), batch_of([structure(0, **labels)])

    def loss(step):
        task.at_step(step, 10)
        return task.loss(model, batch)

    early, late, outside = loss(4), loss(5), loss(None)
    assert outside.loss == early.loss
    assert (late.loss - early.loss).item() == pytest.approx(18.0 * early.parts["energy"].item(), rel=1e-5)
    assert early.parts["energy"] > 1e-3


def test_atoms_with_large_forces_count_less_in_proportion():
    forces = np.zeros((4, 3))
    forces[0, 0], forces[1, 1] = 8.0, 1.0
    labels = {"energy": np.asarray(-15.0), "forces": forces, "stress": np.zeros((3, 3))}
    batch = batch_of([structure(0, **labels)])

    def part(**options):
        targets = {"energy": TargetConfig(kind="energy", **options)}
        losses = LabelLosses(targets, 1e6, statistics())
        found = {name: torch.zeros_like(batch.labels[name]) for name in ("energy", "forces", "stress")}
        return losses(found, batch, late=False)["forces"][1]

    assert (part() / part(large_forces_from=2.0)).item() == pytest.approx((64 + 1) / (64 / 4 + 1))
    assert torch.equal(part(), part(large_forces_from=8.0))
