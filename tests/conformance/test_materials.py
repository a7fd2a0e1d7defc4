"""The materials domain, small, through the suite that every domain inherits; and what only materials promises."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
import torch

import sciml
from domains.materials.simulation.simulate import simulate
from domains.materials.simulation.simulate_config import SimulateConfig
from domains.materials.training.baselines import COMPOSITION
from sciml.core.config import build
from sciml.testing.conformance import DomainConformance

SMALL = (
    "domain=materials", "model.num_channels=16", "model.num_layers=2", "model.cutoff=4", "data.cutoff=4",
    "data.splits.train=0.6", "data.splits.valid=0.2", "data.splits.test=0.2",
)  # fmt: skip


@pytest.fixture(scope="module")
def alloys(tmp_path_factory):
    """A few small copper-nickel structures."""
    folder = tmp_path_factory.mktemp("alloys")
    values = {"out": str(folder / "alloys.extxyz"), "families": ["fcc:CuNi"], "count": 60, "orders": [1, 2]}
    simulate(build(SimulateConfig, values))
    return folder


# A plan's pass mixes fake tensors with real ones, and torch looks at .grad of each of these.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
class TestMaterials(DomainConformance):
    falling = ("trainer.max_steps=60", "optim.lr=1e-2")
    meshes = ("parallel.dp=2", "parallel.tp=2")
    waiting = ("place_pairs",)  # how many neighbors atoms have at most

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _small(cls, alloys):
        paths = (f"data.path={alloys / 'alloys.extxyz'}", f"data.cache={alloys / 'cache'}")
        cls.overrides = (*SMALL, *paths)
        cls.structures = alloys / "alloys.extxyz"

    def arguments_of(self, verb, folder):
        own = {
            "predict": (f"structures={self.structures}", f"out={folder / 'predicted.extxyz'}"),
            "screen": (
                "elements=CuNi",
                "step=0.5",
                "lattices=[fcc]",
                "atoms=8",
                "strains=[0]",
                f"out={folder / 'screen'}",
            ),
            "thermodynamics": (
                "elements=CuNi",
                "atoms=4",
                "temperatures=[500,1000]",
                "sweeps=12",
                "replicas=2",
                f"out={folder / 'thermodynamics'}",
            ),
            "prepare": (f"path={self.structures}", f"out={folder / 'store'}"),
            "simulate": ("families=['fcc:CuNi']", "orders=[1,2]", "count=4", f"out={folder / 'alloys.extxyz'}"),
        }
        return own.get(verb) or super().arguments_of(verb, folder)

    @pytest.mark.slow
    def test_an_ensemble_is_the_same_on_two_processes(self, tmp_path):
        single = self.training(tmp_path / "one", "task.members=2")
        single.trainer.fit()
        self.equals_on("parallel.tp=2", single, tmp_path / "two", "task.members=2")

    def test_python_predicts_as_the_calculator_does(self, commanded, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        model = sciml.load("latest", runs_dir=str(commanded))
        alloys = ase.io.read(self.structures, ":5")
        predicted = model.predict(alloys, dtype="float64")
        calculator = model.calculator()
        for atoms, labeled in zip(alloys, predicted, strict=True):
            atoms.calc = calculator
            assert labeled.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
            np.testing.assert_allclose(labeled.get_forces(), atoms.get_forces(), atol=1e-8)
            np.testing.assert_allclose(labeled.get_stress(), atoms.get_stress(), atol=1e-10)
        assert len(model.predict(alloys[0])) == 1
        assert not list(tmp_path.iterdir())

    def test_an_untrained_model_gives_reference_energies_and_no_forces(self, tmp_path):
        training = self.training(tmp_path, "model.repulsion=none")
        splits, task, model = training.trainer.splits, training.trainer.task, training.trainer.engine.model.module
        batch = splits.test.collate([splits.test.sample(n, None) for n in range(4)])
        found = task.predict(model, batch).values
        expected = task.baselines()[COMPOSITION](batch).values["energy"]
        torch.testing.assert_close(found["energy"], expected, rtol=1e-6, atol=1e-4)
        assert found["forces"].abs().max() == 0
