"""Ranks that share a structure give the energy, forces and stress of one process."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

from domains.materials.data.neighbors import graph_sample
from domains.materials.data.structure import Structure
from domains.materials.inference.partition import Ranks, evaluate_shared, owners_of
from domains.materials.inference.predictor import recomputing
from domains.materials.training.ensemble import MaterialsEnsemble, combined
from domains.materials.training.heads import TargetConfig
from domains.materials.training.pair_baseline import EMBEDDINGS, FUNCTIONS, PairBaseline
from domains.materials.training.potential import MaterialsGNN
from domains.materials.training.task import MaterialsTask, MaterialsTaskConfig
from sciml.distributed.world import World
from sciml.models.gnn import FORCE_LAYERS, GNNConfig
from tests.unit.materials.test_screen import SCHEMA, statistics

ELEMENTS = SCHEMA.elements


def sample() -> Any:
    """A sheared alloy of 96 atoms, periodic, whose cutoff reaches across its shortest side."""
    generator = np.random.default_rng(0)
    atoms = bulk("Cu", "fcc", 3.6, cubic=True).repeat((4, 3, 2))
    atoms.numbers = generator.choice(ELEMENTS, len(atoms))
    atoms.set_cell(atoms.cell @ (np.eye(3) + 0.03 * generator.normal(size=(3, 3))), scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return graph_sample(Structure.from_atoms(atoms), 4.0)


def potential(layer: str, members: int) -> tuple[MaterialsTask, torch.nn.Module]:
    config = GNNConfig(layer=layer, num_channels=8, num_layers=3, cutoff=4.0, num_radial=4, repulsion="zbl")
    targets = {"energy": TargetConfig(kind="energy")}
    torch.manual_seed(0)
    models = [MaterialsGNN(config, ELEMENTS, targets, branches=("main",), avg_num_neighbors=30.0, tells_bonds=False)
              for _ in range(members)]  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    model = models[0] if members == 1 else MaterialsEnsemble(models)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    pair = PairBaseline(
        torch.randn(3, FUNCTIONS, generator=generator).double(), torch.zeros(3, 3, FUNCTIONS).double(),
        torch.randn(3, EMBEDDINGS["meam"], generator=generator).double(),
        torch.zeros(3).double(), torch.tensor(4.0).double(), torch.tensor(1.0).double(),
    )  # fmt: skip
    known = statistics()
    known = type(known)(**{**vars(known), "pair": pair.to_tensors()})
    task = MaterialsTask(SCHEMA, known, MaterialsTaskConfig(targets=targets, members=members))
    return task, model.double()


def shared(world: World, layer: str, members: int = 1, recompute: bool = False) -> dict[str, torch.Tensor]:
    task, model = potential(layer, members)
    group = torch.distributed.group.WORLD if world.size > 1 else None
    ranks = Ranks(world.rank, world.size, group)
    options = {"dtype": torch.float64, "device": world.device, "atomic": True}
    if recompute:
        with recomputing(model):
            return evaluate_shared(task, model, sample(), ranks, **options)
    return evaluate_shared(task, model, sample(), ranks, **options)


@lru_cache
def alone(layer: str, members: int = 1) -> dict[str, torch.Tensor]:
    """The plain evaluation of the whole."""
    from domains.materials.data.batch import collate

    task, model = potential(layer, members)
    found = task.evaluate(model, collate([sample()], dtype=torch.float64), create_graph=False, atomic=True)
    return {name: value.detach() for name, value in combined(found, {}).items()}


def check(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.abs().max() > 1e-6, name
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("layer", FORCE_LAYERS)
def test_one_process_with_recomputation_gives_the_same(layer):
    check(shared(World(0, 1, torch.device("cpu")), layer, recompute=True), alone(layer))


@pytest.mark.parametrize(
    ("layer", "count"),
    [pytest.param(layer, count, marks=[] if (layer, count) in (("painn", 2), ("tensornet", 2)) else [pytest.mark.slow])
     for layer in FORCE_LAYERS for count in (2, 3, 4)],
)  # fmt: skip
def test_ranks_that_share_a_structure_give_the_same(ranks, layer, count):
    for found in ranks(count).run(shared, layer):
        check(found, alone(layer))


def test_members_of_an_ensemble_have_their_spread(ranks):
    for found in ranks(2).run(shared, "painn", 2, True):
        check(found, alone("painn", 2))


def test_atoms_are_shared_evenly_and_in_blocks():
    structure = sample()
    for count in (1, 2, 3, 4, 7):
        owner = owners_of(structure.positions, structure.cell, count)
        sizes = np.bincount(owner, minlength=count)
        assert sizes.sum() == len(owner)
        assert sizes.max() - sizes.min() <= 2
    halves = owners_of(structure.positions, structure.cell, 2)
    along = (structure.positions @ np.linalg.inv(structure.cell))[:, 0] % 1
    assert along[halves == 0].max() <= along[halves == 1].min()
    chain = np.linspace(0, 10, 10)[:, None] * [[0.0, 0.0, 1.0]]  # without a cell
    assert owners_of(chain, np.zeros((3, 3)), 2).tolist() == [0] * 5 + [1] * 5
