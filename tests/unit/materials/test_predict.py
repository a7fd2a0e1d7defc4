"""Structures in a file, and what a trained model says of them in another."""

from __future__ import annotations

import json
import lzma
from dataclasses import fields
from pathlib import Path

import ase.calculators.singlepoint
import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms

from domains.materials.data.readers.source import read_structures
from domains.materials.data.structure import Structure
from domains.materials.inference import predict as predicting
from domains.materials.inference import predictor as predictor_module
from domains.materials.inference.predict import PredictConfig, predict
from domains.materials.inference.predictor import Predictor
from sciml.app.cli import main
from sciml.app.run_on_model import RunChoice
from sciml.core.config import build
from sciml.core.errors import ConfigError, DataError
from sciml.domain.optional import Predicts
from sciml.run.loaded import load_model

from .alloy_files import dimer, extxyz

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def opened(small_run):
    return load_model(small_run())


@pytest.fixture(scope="module")
def ensemble(small_run):
    return load_model(small_run("task.members=2"))


def test_the_configuration_file_has_every_key_with_its_default():
    values = yaml.safe_load((ROOT / "conf/predict.yaml").read_text())
    known = {field.name: field.default for field in (*fields(RunChoice), *fields(PredictConfig))}
    assert values == known


def crystal(seed=0, **info):
    """Eight rattled copper and nickel atoms with entries of their own."""
    atoms = bulk("Cu", "fcc", 3.6, cubic=True).repeat((2, 1, 1))
    atoms.symbols[:3] = "Ni"
    atoms.rattle(0.05, seed=seed)
    atoms.info.update(info)
    return atoms


@pytest.fixture
def predicted(opened, tmp_path):
    """Predicts some atoms; gives what was made and the atoms that were written."""

    def run(atoms, model=opened, **keys):
        path = atoms if isinstance(atoms, str) else extxyz(tmp_path / "in.extxyz", atoms)
        out = tmp_path / keys.pop("out", "out.extxyz")
        made = predict(model, build(PredictConfig, {"structures": path, "out": str(out), **keys}))
        with lzma.open(out, "rt") if out.suffix == ".xz" else out.open() as text:
            return made, ase.io.read(text, ":", format="extxyz")

    return run


def test_what_is_written_is_what_the_predictor_says(predicted, opened):
    some = [crystal(seed) for seed in range(5)]
    made, written = predicted(some, dtype="float64")
    assert made.document["structures"] == len(written) == 5
    assert made.document["properties"] == ["energy", "forces", "stress"]
    expected = Predictor(opened, dtype="float64").predict(Structure.from_atoms(atoms) for atoms in some)
    for atoms, before, values in zip(written, some, expected, strict=True):
        assert atoms.get_chemical_symbols() == before.get_chemical_symbols()
        np.testing.assert_allclose(atoms.positions, before.positions, atol=1e-7)
        assert atoms.get_potential_energy() == pytest.approx(values["energy"], abs=1e-6)
        np.testing.assert_allclose(atoms.get_forces(), values["forces"], atol=2e-6)
        np.testing.assert_allclose(atoms.get_stress(voigt=False), values["stress"], atol=1e-6)


def test_structures_keep_their_own_entries_and_lose_their_labels(predicted):
    atoms = crystal(note="as cast", group="Cu-Ni", fractions=np.array([0.6, 0.4]))
    atoms.arrays["site"] = np.arange(8)
    atoms.arrays["forces_std"] = np.ones((8, 3))
    atoms.info["energy_std"] = 99.0
    labeled = atoms.copy()
    labeled.calc = ase.calculators.singlepoint.SinglePointCalculator(labeled, energy=123.0, magmoms=np.ones(8))
    _, (written,) = predicted([labeled])
    assert written.info["note"] == "as cast"
    assert written.info["group"] == "Cu-Ni"
    np.testing.assert_allclose(written.info["fractions"], [0.6, 0.4])
    np.testing.assert_array_equal(written.arrays["site"], np.arange(8))
    assert written.get_potential_energy() != 123.0
    assert not {"magmoms", "energy_std", "forces_std"} & ({*written.info, *written.arrays, *written.calc.results})
    assert written.info["name"].endswith("in.extxyz@0")


def test_an_ensemble_writes_its_spreads(predicted, ensemble):
    made, written = predicted([crystal(), crystal(1)], model=ensemble)
    (expected, *_) = Predictor(ensemble).predict([Structure.from_atoms(crystal())])
    assert written[0].info["energy_std"] == pytest.approx(float(expected["energy_std"]), rel=1e-4)
    assert written[0].arrays["forces_std"].shape == (8, 3)
    np.testing.assert_allclose(written[0].info["stress_std"], expected["stress_std"].ravel(), rtol=1e-3)
    assert not any(line.startswith("spreads") for line in made.text.splitlines())


def test_three_atoms_have_a_spread_of_stress_and_not_one_each(predicted, ensemble):
    three = bulk("Cu", "fcc", 3.6, cubic=True)
    del three[3]
    _, (written,) = predicted([three], model=ensemble)
    assert written.info["stress_std"].shape == (9,)
    assert "stress_std" not in written.arrays


def test_files_that_name_no_elements_or_no_cell_are_predicted_with_what_is_given(predicted, tmp_path):
    atoms = crystal()
    (tmp_path / "a.cfg").write_text(
        "BEGIN_CFG\n Size\n 8\n Supercell\n" + "".join(f" {x:.9f} {y:.9f} {z:.9f}\n" for x, y, z in atoms.cell.array)
        + " AtomData: id type cartes_x cartes_y cartes_z\n"
        + "".join(f" {n + 1} {int(one.symbol == 'Cu')} " + " ".join(f"{x:.9f}" for x in one.position) + "\n"
                  for n, one in enumerate(atoms)) + "END_CFG\n"
    )  # fmt: skip
    (tmp_path / "a.txt").write_text(
        "-6000.0 0.0 0.0\n"
        + "".join(f"{one.number} 0 " + " ".join(f"{x:.9f}" for x in one.position) + " 28.0 0.1 0\n" for one in atoms)
    )
    expected = predicted([atoms], out="a.extxyz")[1][0].get_potential_energy()
    with pytest.raises(ConfigError, match=r"species: .*a.cfg numbers its elements from 0 .*e.g. species="):
        predicted(str(tmp_path / "a.cfg"), out="b.extxyz")
    with pytest.raises(ConfigError, match=r"cell: .*a.txt is LSMS's text, which has no cell; e.g. cell="):
        predicted(str(tmp_path / "a.txt"), out="b.extxyz")
    for name, keys in (("a.cfg", {"species": ["Ni", "Cu"]}), ("a.txt", {"cell": [7.2, 3.6, 3.6], "length_unit": "A"})):
        (found,) = predicted(str(tmp_path / name), out=f"{name}.extxyz", **keys)[1]
        assert found.get_potential_energy() == pytest.approx(expected, abs=1e-4)
        assert found.pbc.all()


def test_labels_under_a_formats_own_names_are_lost_too(predicted, tmp_path):
    atoms = crystal()
    arrays = {"R": atoms.positions[None], "z": atoms.numbers, "cell": atoms.cell.array[None], "F": np.ones((1, 8, 3))}
    np.savez(tmp_path / "a.npz", **arrays, E=np.array([99.0]), charge_of_cell=np.array([1.5]))
    (found,) = predicted(str(tmp_path / "a.npz"), properties=["energy"])[1]
    assert not {"E", "F"} & {*found.info, *found.arrays}
    assert found.info["charge_of_cell"] == 1.5


def test_only_what_is_asked_for_is_written(predicted, ensemble):
    _, (written,) = predicted([crystal()], model=ensemble, properties=["energy"])
    assert set(written.calc.results) == {"energy"}
    assert "energy_std" in written.info
    assert "stress_std" not in written.info
    assert "forces_std" not in written.arrays


def test_structures_without_a_cell_have_no_stress(predicted, tmp_path):
    _, (written,) = predicted([dimer()])
    assert set(written.calc.results) == {"energy", "forces"}
    ((_, again),) = read_structures(str(tmp_path / "out.extxyz"))  # the suite reads what it writes
    assert set(again.labels) == {"energy", "forces"}
    with pytest.raises(DataError, match=r"in\.extxyz@0: stress needs a cell of three vectors"):
        predicted([dimer()], out="b.extxyz", properties=["stress"])


def test_structures_outside_are_marked_and_told_of_worst_first(predicted):
    close = Atoms("Cu2", positions=[[0, 0, 0], [1.5, 0, 0]])
    made, written = predicted([crystal(), close, Atoms("CuNi", positions=[[0, 0, 0], [1.2, 0, 0]])])
    assert [atoms.info["outside"] for atoms in written] == [False, True, True]
    assert "outside_why" not in written[0].info
    assert "Cu-Cu at 1.50 A" in written[1].info["outside_why"]
    outside = made.document["outside"]
    assert (outside["structures"], outside["by_reason"]) == (2, {"distance": 2})
    assert [one["structure"].rpartition("@")[2] for one in outside["worst"]] == ["2", "1"]
    assert made.text.splitlines()[2].startswith("outside    2 of 3 lie outside the training set (distance 2)")
    json.dumps(made.document)


def test_of_many_structures_outside_only_the_worst_are_kept(monkeypatch):
    monkeypatch.setattr(predicting, "KEPT", 3)
    outsiders = predicting.OutOfDomain()
    for excess in (1.5, 1.1, 1.9, 1.3, 1.7):
        outsiders.add(str(excess), [predicting.Reason("distance", "too close", excess)])
    outsiders.add("inside", [])
    assert outsiders.count == 5
    assert [name for name, _ in outsiders.worst] == ["1.9", "1.7", "1.5"]


def test_a_compressed_file_and_many_batches_hold_the_same(predicted, monkeypatch):
    some = [crystal(seed) for seed in range(4)]
    _, plain = predicted(some)
    monkeypatch.setattr("domains.materials.inference.predictor.BATCH_EDGES", 1)
    _, compressed = predicted(some, out="out.extxyz.xz")
    for one, other in zip(plain, compressed, strict=True):
        assert one.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(one.get_forces(), other.get_forces(), atol=1e-5)


def test_the_command_writes_into_the_folder_of_the_run(small_run, tmp_path, capsys):
    folder, path = small_run(), extxyz(tmp_path / "in.extxyz", [crystal()])
    for number in (1, 2):
        main("predict", [f"run={folder.path}", f"structures={path}", "output=json"])
        document = json.loads(capsys.readouterr().out)
        assert document["predicted"] == str(folder.path / "predictions" / f"prediction-{number:03d}.extxyz")
    assert isinstance(load_model(folder).spec.domain, Predicts)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"structures": ""}, "structures: no structures are named"),
        ({"structures": "a.extxyz", "out": "b.cif"}, r"out: 'b.cif' ends neither in \.extxyz nor in \.extxyz\.xz"),
        ({"structures": "a.extxyz", "properties": []}, "properties: nothing is asked for"),
        ({"structures": "a.extxyz", "dtype": "float16"}, "dtype must be one of float32, float64, got 'float16'"),
    ],
)
def test_keys_that_cannot_work_are_refused(keys, says):
    with pytest.raises(ConfigError, match=says):
        build(PredictConfig, keys)


def with_nan():
    atoms = crystal()
    atoms.positions[2, 1] = np.nan
    return atoms


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Atoms("CuAu", positions=[[0, 0, 0], [2.5, 0, 0]]), r"in\.extxyz@1: the model does not know Au; .* Ni, Cu"),
        (dimer(pbc=True), r"in\.extxyz@1: pbc says that the structure repeats, but it has no cell"),
        (with_nan(), r"in\.extxyz@1: the position of atom 2 is not a finite number"),
        (dimer(0.3), r"in\.extxyz@1: atoms 0 and 1 are 0\.30 A apart, closer than 0\.4 A"),
    ],
)
def test_a_structure_that_cannot_be_predicted_leaves_no_file(predicted, tmp_path, bad, says):
    with pytest.raises(DataError, match=says):
        predicted([crystal(), bad])
    assert [path.name for path in tmp_path.iterdir()] == ["in.extxyz"]


@pytest.mark.parametrize("relax", ["none", "atoms"])
def test_structures_that_cannot_be_predicted_are_left_out_where_that_is_wanted(predicted, relax):
    strange, near, fixed = Atoms("CuAu", positions=[[0, 0, 0], [2.5, 0, 0]]), dimer(0.3), crystal(4)
    fixed.set_constraint(FixAtoms([0]))
    given = [crystal(0, place=0), strange, with_nan(), crystal(1, place=3), near, fixed, crystal(2, place=6)]
    made, found = predicted(given, skip_bad=True, relax=relax, max_steps=2, dtype="float64")
    alone, expected = predicted(
        [given[n] for n in (0, 3, 6)], relax=relax, max_steps=2, dtype="float64", out="b.extxyz"
    )
    kept = 4 if relax == "none" else 3  # fixed atoms can be predicted, and not be relaxed
    assert (made.document["structures"], made.document["left_out"]) == (kept, 7 - kept)
    assert "left_out" not in alone.document
    assert f"left out   {7 - kept} left out (skip_bad): " in made.text
    by_place = {one.info["place"]: one.get_potential_energy() for one in found if "place" in one.info}
    assert [by_place[n] for n in (0, 3, 6)] == pytest.approx([one.get_potential_energy() for one in expected])
    with pytest.raises(DataError, match=r"no structure is left to predict; 2 left out .*the model does not know Au"):
        predicted([strange, near], skip_bad=True, out="c.extxyz")


def test_neighbors_are_searched_once_for_each_structure(predicted, monkeypatch):
    searched = []
    search = predictor_module.graph_sample
    monkeypatch.setattr(predictor_module, "graph_sample", lambda *given: searched.append(given) or search(*given))
    predicted([crystal(seed) for seed in range(5)])
    assert len(searched) == 5


def test_an_empty_file_is_refused(predicted, tmp_path):
    empty = tmp_path / "empty.extxyz"
    empty.touch()
    with pytest.raises(DataError, match=r"empty\.extxyz: the file is empty"):
        predicted(str(empty))
    assert not (tmp_path / "out.extxyz").exists()


def test_a_property_without_a_head_is_refused(predicted):
    with pytest.raises(ConfigError, match="no head for 'hardness'; it predicts energy, forces, stress"):
        predicted([crystal()], properties=["hardness"])


def test_an_earlier_file_is_not_written_over(predicted, tmp_path):
    (tmp_path / "out.extxyz").write_text("mine")
    with pytest.raises(ConfigError, match=r"out: .*out\.extxyz is there already"):
        predicted([crystal()])
    assert (tmp_path / "out.extxyz").read_text() == "mine"


def test_an_unknown_data_set_is_refused(predicted):
    with pytest.raises(ConfigError, match=r"branch must be one of .*, got 'dft'"):
        predicted([crystal()], branch="dft")
