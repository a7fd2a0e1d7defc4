"""Screens that relax, compare with other phases and find elastic constants; EAM stands in for a trained model."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import write

from domains.materials.data.structure import Structure
from domains.materials.dynamics.relax import RelaxConfig, relax
from domains.materials.inference.predictor import Predictor
from domains.materials.screening.elastic import elastic, properties
from domains.materials.screening.hull import Hull
from domains.materials.screening.screen import make_screen
from domains.materials.simulation import eam
from domains.materials.simulation.labeling import pure_crystal
from sciml.core.errors import ConfigError
from tests.unit.materials.test_screen import EAM, NUMBERS, SCHEMA, rows_of, small, statistics


class EAMPredictor(Predictor):
    """The potential as a predictor; members scale its energies."""

    def __init__(self, scales=(1.0,)):
        self.schema, self.statistics, self._branch, self.scales = SCHEMA, statistics(), 0, scales
        self.cutoff, self.dtype, self.device, self.model = eam.reach(NUMBERS), torch.float64, torch.device("cpu"), None
        self.config = SimpleNamespace(has_gradients=True, members=len(scales), targets={"energy": None})
        self.predicts, self.has_spread = ("energy", "forces", "stress"), len(scales) > 1
        self.task = self

    def evaluate(self, model, batch, *, create_graph, gradients=True, atomic=False):
        found = eam.evaluate(batch)
        values = {"energy": found.energy, "forces": found.forces, "stress": found.stress}
        return [{name: scale * value for name, value in values.items()} for scale in self.scales]


def test_elastic_constants_of_nickel_are_those_of_the_potential():
    a = pure_crystal("eam", "Ni", "fcc").a
    crystal = Structure.from_atoms(bulk("Ni", "fcc", a * 1.01, cubic=True))
    found = elastic(EAMPredictor((1.0, 1.1)), [crystal], RelaxConfig(fmax=1e-3, max_steps=200))
    # Zhou, Johnson and Wadley's nickel has 247, 147 and 125 GPa; members differ by a tenth
    assert found.c11.mean / 1.05 == pytest.approx(247, rel=0.02)
    assert found.c12.mean / 1.05 == pytest.approx(147, rel=0.03)
    assert found.c44.mean / 1.05 == pytest.approx(125, rel=0.03)
    assert found.bulk.spread / found.bulk.mean == pytest.approx(0.1 / 2**0.5 / 1.05, rel=1e-3)
    assert found.pugh.spread == pytest.approx(0, abs=1e-6)
    assert found.stable


def test_atoms_of_an_alloy_follow_the_strain():
    atoms = bulk("Ni", "fcc", 3.7, cubic=True)
    atoms.symbols[:] = ["Ni", "Pd", "Pd", "Cu"]
    atoms = atoms.repeat((2, 1, 1))
    atoms.symbols[1] = "Ni"
    alloy, predictor = [Structure.from_atoms(atoms)], EAMPredictor()
    tight = elastic(predictor, alloy, RelaxConfig(fmax=1e-5, max_steps=2000))
    usual = elastic(predictor, alloy, small(fmax=0.03, elastic=1).relaxing_strained)
    loose = elastic(predictor, alloy, RelaxConfig(fmax=0.03, max_steps=200))
    assert usual.unfinished == tight.unfinished == 0
    assert usual.shear.mean == pytest.approx(tight.shear.mean, rel=1e-3)
    assert loose.shear.mean > 1.01 * tight.shear.mean
    assert elastic(predictor, alloy, RelaxConfig(fmax=1e-5, max_steps=1)).unfinished == 13


def test_moduli_follow_from_an_isotropic_matrix():
    matrix = np.zeros((6, 6))
    bulk_modulus, shear = 160.0, 80.0
    matrix[:3, :3] = bulk_modulus - 2 / 3 * shear
    matrix[range(3), range(3)] = bulk_modulus + 4 / 3 * shear
    matrix[range(3, 6), range(3, 6)] = shear
    found = properties(matrix[None])
    assert (found.bulk.mean, found.shear.mean) == pytest.approx((bulk_modulus, shear))
    assert found.cauchy.mean == pytest.approx(bulk_modulus - 5 / 3 * shear)
    assert found.bulk.spread is None
    assert not properties(-matrix[None]).stable


def test_the_hull_is_the_lowest_mixture():
    hull = Hull(("Ni", "Cu"), ("CuNi", "Cu3Ni"), np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([-0.1, -0.04]))
    found = hull.at({"Ni": 0.25, "Cu": 0.75})  # Cu3Ni is above the line from CuNi to Cu
    assert found.enthalpy == pytest.approx(-0.05)
    assert found.text in ("50% CuNi + 50% Cu", "50% Cu + 50% CuNi")
    assert hull.at({"Ni": 1.0}).enthalpy == 0
    assert Hull(("Ni",), (), np.zeros((0, 1)), np.zeros(0)).at({"Ni": 1.0}).enthalpy == 0


def test_a_screen_relaxes_and_compares_with_other_phases(tmp_path):
    phase = bulk("Ni", "fcc", 3.6, cubic=True)  # L1_2, which relaxes to a volume of its own
    phase.symbols[0] = "Cu"
    other = bulk("Fe", "bcc", 2.87)
    write(tmp_path / "phases.extxyz", [phase, other])
    common = {"elements": "NiCu", "step": 0.25, "atoms": 8, "decorations": 2, "temperature": 0.0}
    keys = {"relax": "cell", "fmax": 0.02, "hull": str(tmp_path / "phases.extxyz"), "elastic": 1,
            "rank_by": "above_hull"}  # fmt: skip
    predictor = EAMPredictor()
    made = make_screen(predictor, small(**common, **keys), tmp_path / "relaxed", {"run": "eam"})
    rigid = make_screen(EAM(), small(**common), tmp_path / "rigid", {"run": "eam"})
    before = {row["composition"]: row for row in rows_of(tmp_path / "rigid")}
    (l12,) = relax(predictor, [Structure.from_atoms(phase)], RelaxConfig("cell", 0.02))
    reference = 0.75 * pure_crystal("eam", "Ni", "fcc").energy + 0.25 * pure_crystal("eam", "Cu", "fcc").energy
    formation = l12.values["energy"] / 4 - reference
    for row in rows_of(tmp_path / "relaxed"):
        old, new = (float(one["mixing_enthalpy"]) for one in (before[row["composition"]], row))
        assert old - new == pytest.approx(float(row["gain"]), abs=3e-6)
        assert old - new > -1e-4
        assert row["unfinished"] == "0"
        if row["composition"] == "Ni75Cu25":
            assert float(row["above_hull"]) == pytest.approx(new - min(formation, 0.0), abs=1e-4)
    record = json.loads((tmp_path / "relaxed" / "screen.json").read_text())
    (best,) = record["elastic"]
    assert 1.0 < best["pugh"] < 3.5
    assert best["bulk_spread"] is None
    page = (tmp_path / "relaxed" / "screen.html").read_text()
    assert "Elastic constants" in page
    assert "above hull" in page
    assert page.count("data:image/png;base64,") >= 1
    assert "1 phase of" in made.text
    assert "above hull" in made.text
    assert "above hull" not in rigid.text


def test_a_model_without_energy_cannot_relax(tmp_path):
    with pytest.raises(ConfigError, match="run: the model has no energy to relax by"):
        make_screen(EAM(), small(relax="atoms"), tmp_path / "none", {})
