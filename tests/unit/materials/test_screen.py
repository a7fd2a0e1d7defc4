"""Screens of alloys: enthalpies are those of a potential by hand, whole or resumed; bad input is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from ase.data import atomic_numbers
from matplotlib.image import imread
from scipy.optimize import minimize_scalar

from domains.materials.data.batch import collate
from domains.materials.data.neighbors import graph_sample
from domains.materials.data.schema import Label, MaterialsSchema, MaterialsStatistics
from domains.materials.data.structure import Structure
from domains.materials.domain import MaterialsDomain
from domains.materials.inference.predictor import Predictor
from domains.materials.screening import screen as screening
from domains.materials.screening.compositions import Composition
from domains.materials.screening.equilibrium import downhill, minimum, natural_volume, pure_crystals
from domains.materials.screening.mixing import Mixing
from domains.materials.screening.ranking import BOLTZMANN
from domains.materials.screening.screen import make_screen, screen
from domains.materials.screening.screen_config import ScreenConfig
from domains.materials.screening.sites import Sites, compact_repeats
from domains.materials.simulation import eam
from domains.materials.simulation.alloys import FIRST_SHELL
from domains.materials.simulation.labeling import EAMLabeler, pure_crystal
from domains.materials.simulation.short_range_order import warren_cowley
from domains.materials.training.ensemble import MaterialsEnsemble
from domains.materials.training.heads import TargetConfig
from domains.materials.training.potential import MaterialsGNN
from domains.materials.training.task import MaterialsTaskConfig
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.domain.optional import Screens
from sciml.domain.protocol import FittedData, LoadedModel
from sciml.models.gnn import GNNConfig

ROOT = Path(__file__).parents[3]
SYMBOLS = ("Ni", "Cu", "Pd")
NUMBERS = tuple(sorted(atomic_numbers[symbol] for symbol in SYMBOLS))
LABELS = {"energy": Label("graph", (), "eV"), "hardness": Label("graph", (), "GPa")}
SCHEMA = MaterialsSchema(NUMBERS, 5.0, LABELS, title="metals of a test", avg_num_neighbors=40.0)


def statistics() -> MaterialsStatistics:
    def number(value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=torch.float64)

    values = {"energy": number(0.2), "forces": number(0.7), "stress": number(0.05), "hardness": number(1.0)}
    return MaterialsStatistics(
        references=torch.tensor([[-4.5, -3.5, -3.9]], dtype=torch.float64),
        energy_std=number(0.2),
        avg_num_neighbors=number(40.0),
        element_counts=torch.ones(3, dtype=torch.float64),
        shortest=torch.full((3, 3), 2.2, dtype=torch.float64),
        mean=dict.fromkeys(values, number(0.0)),
        std=values,
        rms=values,
        count=dict.fromkeys(values, number(10.0)),
    )


class EAM:
    """The potential itself, in place of a trained model; members may each err in their own way.

    Args:
        scales: of the energies, by member.
        biases: eV an atom of each element, by member.
        fail_after: calls after which it is interrupted.
    """

    def __init__(self, scales=(1.0,), biases=None, predicts=("energy", "forces"), fail_after=None):
        self.schema, self.statistics, self.predicts = SCHEMA, statistics(), predicts
        self.cutoff, self.branch = eam.reach(NUMBERS), 0
        self.scales, self.biases = scales, biases or [{}] * len(scales)
        self.fail_after, self.calls = fail_after, 0

    def member_values(self, samples, name):
        if self.fail_after is not None and self.calls > self.fail_after:
            raise KeyboardInterrupt
        self.calls += 1
        samples = list(samples)
        found = []
        for first in range(0, len(samples), 50):
            some = samples[first : first + 50]
            energy = eam.evaluate(collate(some, dtype=torch.float64)).energy.numpy()
            if name == "mixing_enthalpy":
                energy = [e / len(s.atomic_numbers) - pure(s.atomic_numbers) for e, s in zip(energy, some, strict=True)]
            shifts = [[sum(bias.get(int(z), 0.0) for z in s.atomic_numbers) for s in some] for bias in self.biases]
            found.append(np.multiply.outer(self.scales, energy) + shifts)
        return np.concatenate(found, axis=1)


def pure(numbers) -> float:
    """The mean energy of an atom in the elements' FCC crystals."""
    symbols = {z: symbol for symbol, z in atomic_numbers.items()}
    return float(np.mean([pure_crystal("eam", symbols[int(z)], "fcc").energy for z in numbers]))


def small(**changes) -> ScreenConfig:
    values = {"elements": "NiCuPd", "lattices": ("fcc",), "step": 0.25, "decorations": 2, "atoms": 16}
    return build(ScreenConfig, {**values, **changes})


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "screen.csv").open() as file:
        return list(csv.DictReader(file))


def trained(members: int, directory: Path, **targets) -> LoadedModel:
    """A model that nobody has trained, whose energies still depend on where atoms are."""
    targets = targets or {"energy": TargetConfig(kind="energy")}
    config = GNNConfig(num_channels=8, num_layers=2, cutoff=5.0, num_radial=4)
    torch.manual_seed(0)
    models = [
        MaterialsGNN(config, NUMBERS, targets, branches=("main",), avg_num_neighbors=40.0) for _ in range(members)
    ]
    whole = models[0] if members == 1 else MaterialsEnsemble(models)
    with torch.no_grad():
        for model in models:
            for head in model.heads.values():
                for out in head.out:
                    out.weight.normal_(0, 0.02)
    task = MaterialsTaskConfig(targets=targets, members=members)
    cfg = SimpleNamespace(model=config, task=task)
    return LoadedModel(directory, cfg, FittedData(SCHEMA, statistics()), whole.eval(), torch.device("cpu"))


class TestConfig:
    def test_the_configuration_file_says_the_defaults(self):
        values = yaml.safe_load((ROOT / "conf/screen.yaml").read_text())
        for key in ("run", "runs_dir", "checkpoint", "device", "output"):
            values.pop(key)
        assert values.pop("elements") == ""
        assert build(ScreenConfig, {**values, "elements": "CoNi"}) == ScreenConfig(elements="CoNi")

    def test_elements_by_formula_or_by_list(self):
        assert small(elements="NiCuPd").symbols == small(elements=["Ni", "Cu", "Pd"]).symbols == SYMBOLS

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"elements": ""}, "elements: which elements .*elements=CoCuFeNiPd"),
            ({"elements": "NiCuNi"}, "elements: Ni is named more than once"),
            ({"elements": "nickel"}, "elements: 'nickel' is no formula"),
            ({"elements": ["Ni", "Qq"]}, "elements: 'Qq' is no element"),
            ({"order": 4}, "order: 3 elements have no composition of 4; at most 3"),
            ({"order": [0, 2]}, "order: an alloy has at least one element"),
            ({"order": []}, "order: an alloy has"),
            ({"step": 0.3}, "step: 0.3 does not divide 1; for example step=0.333333"),
            ({"step": 0.001, "atoms": 1000}, "step: 498,501 compositions of 6 structures each .*; step=0.00"),
            ({"lattices": ["fc"]}, "lattices must be one of .*, got 'fc'; did you mean 'fcc'"),
            ({"lattices": ["fcc", "fcc"]}, "lattices: each lattice is named once"),
            ({"atoms": 2, "step": 0.5}, "atoms: 2 atoms are too few for 3 elements; for example atoms=32"),
            ({"atoms": 8, "step": 0.1}, "atoms: 8 atoms have no room for steps of 0.1; atoms=10"),
            ({"atoms": 0}, "atoms must be at least 1, got 0; try atoms=32"),
            ({"strains": [0.0, 0.01]}, "strains: no parabola goes through 2 strains"),
            ({"strains": [-0.3, 0.0, 0.01]}, "strains: a crystal is torn apart; at most 0.1"),
            ({"min_fraction": 0.4}, "min_fraction: no 3 elements have fractions between 0.4 and 1"),
            ({"warren_cowley": 2.0}, "warren_cowley: 2 is no size of an order"),
            ({"warren_cowley": {"Ni-Fe": 0.1}}, "warren_cowley: 'Ni-Fe' is no pair of the elements"),
            ({"warren_cowley": {"Ni-Cu": 1.5}}, "warren_cowley: 1.5 of Ni-Cu"),
            (
                {"rank_by": "price"},
                "rank_by must be one of free_energy.*, spread, got 'price'",
            ),
            ({"rank_by": "above_hull"}, "hull: which phases span the hull"),
            ({"temperature": -1}, "temperature must be at least 0, got -1; try temperature=1000"),
        ],
    )
    def test_bad_input_is_one_sentence(self, changes, says):
        with pytest.raises(ConfigError, match=says) as error:
            small(**changes)
        assert "\n" not in str(error.value)


class TestSites:
    @pytest.mark.parametrize("lattice", ["fcc", "bcc", "hcp"])
    def test_neighbors_are_those_of_a_search(self, lattice):
        """At sizes with different numbers of shells within the cutoff, small ones after large ones and back."""
        sites = Sites(lattice, (2, 2, 1), 5.0)
        numbers = np.full(len(sites), 28)
        for a in (3.6, 2.9, 4.4, 3.6):
            sample = sites.sample(numbers, a)
            again = graph_sample(Structure(numbers, sample.positions, sample.cell, sample.pbc), 5.0)

            def edges(of):
                return {tuple(edge) for edge in np.column_stack([of.senders, of.receivers, of.shifts]).tolist()}

            assert edges(sample) == edges(again)
            assert len(sample.senders) == len(again.senders)
            assert abs(np.linalg.det(sample.cell)) == pytest.approx(sites.volume * a**3 * len(sites))

    def test_nearest_neighbors(self):
        for lattice, count in {"fcc": 12, "bcc": 8, "hcp": 12}.items():
            np.testing.assert_array_equal(Sites(lattice, (2, 2, 2), 5.0).nearest.sum(1), count)

    @pytest.mark.parametrize(
        ("lattice", "atoms", "steps", "repeats"),
        [
            ("fcc", 32, 10, (2, 2, 2)),  # 40 atoms would be one cell thin
            ("fcc", 20, 20, (3, 2, 1)),  # and 20 atoms a rod
            ("bcc", 32, 10, (5, 2, 2)),
            ("bcc", 32, 8, (4, 2, 2)),
            ("bcc", 54, 1, (3, 3, 3)),
            ("hcp", 32, 8, (3, 2, 2)),
            ("fcc", 1, 1, (1, 1, 1)),
        ],
    )
    def test_cells_are_compact(self, lattice, atoms, steps, repeats):
        assert compact_repeats(lattice, atoms, steps) == repeats


class TestEquilibrium:
    def test_an_equation_of_state_is_met(self):
        """Birch's, of second order, from points that are not around its minimum."""
        strains = np.array([-0.02, 0.0, 0.03])
        curve = 3 * ((1 + strains) ** -2 - 0.985) ** 2 - 4
        least = minimum(strains, curve)
        assert least.inside
        assert (1 + least.strain) ** -2 == pytest.approx(0.985)
        assert curve @ least.weights == pytest.approx(-4, abs=1e-12)

    def test_ends_and_no_relaxation(self):
        falling = minimum([-0.02, 0.0, 0.02], np.array([3.0, 2.0, 1.2]))
        assert not falling.inside
        assert falling.strain == pytest.approx(0.02)
        hill = minimum([-0.02, 0.0, 0.02], np.array([1.0, 2.0, 1.5]))
        assert not hill.inside
        assert hill.strain == pytest.approx(-0.02)
        np.testing.assert_allclose(hill.weights, [1, 0, 0], atol=1e-9)
        assert minimum([0.01], np.array([5.0])) == (0.01, np.ones(1), True)

    def test_downhill_stops_in_the_nearest_valley(self):
        curve = np.array([-9.0, 3, 2, 1, 0.5, 0.7, 0.9, 1.5])
        assert downhill(curve, 6) == 4
        assert downhill(np.arange(7.0), 3) is None

    @pytest.mark.parametrize("symbol", ["Mn", "Ni"])
    def test_natural_volumes(self, symbol):
        """Also of manganese, whose crystal has 58 atoms in its cell: 12.2 A^3."""
        assert natural_volume(symbol) == pytest.approx({"Mn": 12.2, "Ni": 10.9}[symbol], rel=0.12)

    def test_pure_crystals_are_the_potential_s(self):
        found = pure_crystals(EAM(), "energy", SYMBOLS, ("fcc", "bcc"))
        for (symbol, lattice), one in found.items():
            exact = pure_crystal("eam", symbol, lattice)
            assert one.a == pytest.approx(exact.a, rel=2e-4)
            assert one.values[0] == pytest.approx(exact.energy, abs=1e-4)


class TestMixing:
    def test_is_the_energy_of_relaxed_alloys_less_that_of_the_elements(self):
        """Beside the potential's labels of the same structures, relaxed by a search of their common volume."""
        config = small(lattices=("fcc", "bcc"))
        mixing = Mixing(EAM(), config)
        composition = Composition(SYMBOLS, (2, 1, 1))
        found = mixing.judge([(composition, "fcc")])[0]
        drawn = mixing.draw(composition, "fcc")
        assert found.formula == "Ni8Cu4Pd4"

        def energy(strain):
            some = [drawn.sites.sample(numbers, drawn.a * (1 + strain)) for numbers in drawn.decorations]
            structures = [Structure(s.atomic_numbers, s.positions, s.cell, s.pbc) for s in some]
            return np.array([label["energy"] / 16 for label in EAMLabeler().label(structures)])

        best = minimize_scalar(lambda strain: energy(strain).mean(), bounds=(-0.02, 0.02), method="bounded")
        exact = best.fun - pure(drawn.decorations[0])
        assert 0.01 < abs(exact) < 0.2
        assert found.mixing_enthalpy == pytest.approx(exact, abs=5e-4)
        assert found.volume == pytest.approx(drawn.sites.volume * (drawn.a * (1 + best.x)) ** 3, rel=3e-3)
        both = energy(best.x)
        assert found.decoration_error == pytest.approx(abs(both[0] - both[1]) / 2, abs=3e-4)
        assert found.ideal_entropy == pytest.approx(1.5 * np.log(2))
        assert found.spread is None

    def test_pure_elements_have_none_on_their_best_lattice(self):
        mixing = Mixing(EAM(), small(lattices=("fcc", "bcc"), order=1))
        one = Composition(("Cu",), (4,))
        fcc, bcc = mixing.judge([(one, "fcc"), (one, "bcc")])
        assert abs(fcc.mixing_enthalpy) < 1e-4
        assert bcc.mixing_enthalpy == pytest.approx(mixing.above("Cu", "bcc"), abs=1e-4)
        assert bcc.mixing_enthalpy > 0.01

    def test_errors_of_elements_cancel_within_a_member(self):
        """Members that are wrong about elements alone agree about mixtures; those that are wrong by a factor do not."""
        pure_errors = EAM(scales=(1.0, 1.0), biases=[{28: 0.3, 46: -0.2}, {29: 0.1}])
        candidates = [(Composition(SYMBOLS, (2, 1, 1)), "fcc")]
        assert Mixing(pure_errors, small()).judge(candidates)[0].spread < 1e-9
        factors = Mixing(EAM(scales=(0.9, 1.1)), small()).judge(candidates)[0]
        assert factors.spread == pytest.approx(abs(factors.mixing_enthalpy) * np.std([0.9, 1.1], ddof=1), rel=1e-6)

    def test_calibration_is_a_factor(self):
        candidates = [(Composition(SYMBOLS, (2, 1, 1)), "fcc")]
        plain, calibrated = (
            Mixing(EAM(scales=(0.9, 1.1)), small(), factors).judge(candidates)[0] for factors in ({}, {"energy": 3.0})
        )
        assert calibrated.spread == pytest.approx(3 * plain.spread)
        assert calibrated.mixing_enthalpy == plain.mixing_enthalpy

    def test_a_model_of_the_enthalpy_itself_is_asked_for_it(self):
        candidates = [(Composition(SYMBOLS, (2, 1, 1)), "fcc")]
        direct = Mixing(EAM(predicts=("mixing_enthalpy",)), small()).judge(candidates)[0]
        assert direct.mixing_enthalpy == pytest.approx(
            Mixing(EAM(), small()).judge(candidates)[0].mixing_enthalpy, abs=1e-4
        )

    def test_does_not_depend_on_what_else_is_asked(self):
        mixing = Mixing(EAM(), small())
        candidates = [(one, "fcc") for one in small().grid.compositions()]
        assert len(candidates) == 3
        together = mixing.judge(candidates)
        for one, candidate in zip(together, candidates, strict=True):
            assert mixing.judge([candidate])[0].mixing_enthalpy == pytest.approx(one.mixing_enthalpy, abs=1e-10)

    def test_fractions_are_those_of_whole_atoms(self):
        mixing = Mixing(EAM(), small(step=0.1))
        found = mixing.judge([(Composition(SYMBOLS, (5, 3, 2)), "fcc")])[0]
        assert found.formula == "Ni8Cu5Pd3"
        assert found.fractions == {"Ni": 8 / 16, "Cu": 5 / 16, "Pd": 3 / 16}
        assert mixing.largest_rounding("fcc") == pytest.approx(0.0375)
        assert Mixing(EAM(), small()).largest_rounding("fcc") == 0

    @pytest.mark.parametrize("wanted", [-0.25, 0.25])
    def test_given_order_is_made(self, wanted):
        config = small(elements="NiPd", warren_cowley={"Pd-Ni": wanted}, atoms=32, step=0.5)
        mixing = Mixing(EAM(), config)
        composition = Composition(("Ni", "Pd"), (1, 1))
        drawn = mixing.draw(composition, "fcc")
        for numbers in drawn.decorations:
            sample = drawn.sites.sample(numbers, 3.7)
            structure = Structure(numbers, sample.positions, sample.cell, sample.pbc)
            assert warren_cowley(structure, FIRST_SHELL["fcc"] * 3.7).alpha[0, 1] == pytest.approx(wanted, abs=0.021)
        found = mixing.judge([(composition, "fcc")])[0]
        assert found.order_missed < 0.021
        random = Mixing(EAM(), dataclasses.replace(config, warren_cowley=None)).judge([(composition, "fcc")])[0]
        # of different size, on sites that do not give way: they like to be neighbors
        assert (found.mixing_enthalpy - random.mixing_enthalpy) * wanted > 0

    def test_drawn_order_stays_within_its_strength(self):
        mixing = Mixing(EAM(), small(warren_cowley=0.3, atoms=32, decorations=3))
        found = mixing.judge([(Composition(SYMBOLS, (2, 1, 1)), "fcc")])[0]
        assert found.order_missed < 0.2


class TestScreen:
    def test_table_is_ranked_and_whole(self, tmp_path):
        config = small(order=(1, 2, 3), lattices=("fcc", "bcc"), temperature=500, decorations=1)
        made = make_screen(EAM(), config, tmp_path / "out", {"run": "eam"})
        rows = rows_of(tmp_path / "out")
        assert len(rows) == 2 * (3 + 3 * 3 + 3)
        free = [float(row["free_energy"]) for row in rows]
        assert free == sorted(free)
        for row in rows:
            shares = np.array([float(row[f"x_{symbol}"]) for symbol in SYMBOLS])
            assert shares.sum() == pytest.approx(1)
            shares = shares[shares > 0]
            expected = float(row["mixing_enthalpy"]) + 500 * BOLTZMANN * (shares * np.log(shares)).sum()
            assert float(row["free_energy"]) == pytest.approx(expected, abs=3e-6)
        assert sum(row["lowest_lattice"] == "True" for row in rows) == 15
        record = json.loads((tmp_path / "out" / "screen.json").read_text())
        assert record["pure"]["Cu"]["lattice"] == "fcc"
        assert any("task.members=4" in note for note in record["notes"])
        assert any("decorations=4" in note for note in record["notes"])
        assert made.document["structures"] == len(rows) * 3
        assert not list(tmp_path.glob(".*"))

    def test_an_interrupted_screen_goes_on(self, tmp_path, monkeypatch):
        monkeypatch.setattr(screening, "PART", 12)
        config = small(order=(2, 3))
        straight = make_screen(EAM(), config, tmp_path / "straight", {"run": "eam"})
        with pytest.raises(KeyboardInterrupt):
            make_screen(EAM(fail_after=2), config, tmp_path / "stopped", {"run": "eam"})
        assert not (tmp_path / "stopped").exists()
        resumed = make_screen(EAM(), config, tmp_path / "stopped", {"run": "eam"})
        assert resumed.document["structures"] == straight.document["structures"] - 2 * 12
        for name in ("screen.csv", "screen.json"):
            assert (tmp_path / "stopped" / name).read_text() == (tmp_path / "straight" / name).read_text()
        assert {p.name for p in tmp_path.iterdir()} == {"straight", "stopped"}

    @pytest.mark.parametrize("other", [{"seed": 1}, {"about": {"run": "another"}}])
    def test_parts_of_other_settings_are_not_used(self, tmp_path, monkeypatch, other):
        monkeypatch.setattr(screening, "PART", 12)
        with pytest.raises(KeyboardInterrupt):
            make_screen(EAM(fail_after=1), small(), tmp_path / "out", {"run": "eam"})
        assert len(list((tmp_path / ".out.partial").glob("0*.json"))) == 1
        config = small(seed=other.get("seed", 0))
        made = make_screen(EAM(), config, tmp_path / "out", other.get("about", {"run": "eam"}))
        assert made.document["structures"] == 3 * 6

    def test_ranking_keys_do_not_ask_the_model_again(self, tmp_path, monkeypatch):
        monkeypatch.setattr(screening, "PART", 6)
        with pytest.raises(KeyboardInterrupt):
            make_screen(EAM(fail_after=3), small(order=(2, 3)), tmp_path / "out", {})
        config = small(order=(2, 3), rank_by="mixing_enthalpy", temperature=10, top=2)
        made = make_screen(EAM(), config, tmp_path / "out", {})
        assert made.document["structures"] == 12 * 6 - 3 * 6
        values = [float(row["mixing_enthalpy"]) for row in rows_of(tmp_path / "out")]
        assert values == sorted(values)
        assert len(made.document["best"]) == 2

    def test_spreads_rank_and_are_drawn(self, tmp_path):
        config = small(rank_by="spread", order=(2, 3))
        make_screen(EAM(scales=(0.9, 1.0, 1.1)), config, tmp_path / "out", {})
        spreads = [float(row["spread"]) for row in rows_of(tmp_path / "out")]
        assert spreads == sorted(spreads, reverse=True)
        picture = imread(tmp_path / "out" / "figures" / "ternary.png")
        assert picture.shape[1] > 1.8 * picture.shape[0]  # the uncertainty is beside the enthalpy
        assert picture.std() > 0.05

    def test_what_is_there_is_kept(self, tmp_path):
        out = tmp_path / "out"
        make_screen(EAM(), small(), out, {})
        before = (out / "screen.csv").read_bytes()
        with pytest.raises(ConfigError, match=r"out: .*is there already; .*overwrite=true"):
            make_screen(EAM(), small(seed=1), out, {})
        assert (out / "screen.csv").read_bytes() == before
        make_screen(EAM(), small(seed=1, overwrite=True), out, {})
        assert (out / "screen.csv").read_bytes() != before
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("keep me")
        with pytest.raises(ConfigError, match="is not overwritten"):
            make_screen(EAM(), small(overwrite=True), tmp_path / "mine", {})
        assert (tmp_path / "mine" / "notes.txt").exists()

    @pytest.mark.parametrize(
        ("model", "changes", "says"),
        [
            (EAM(), {"elements": "NiFe"}, "elements: the model does not know Fe; it knows Ni, Cu, Pd"),
            (EAM(predicts=("hardness",)), {}, "run: the model has neither an energy .*it predicts hardness"),
            (EAM(), {"rank_by": "spread"}, "rank_by: a single model has no spread; .*task.members=4"),
            (EAM(scales=(-1.0,)), {}, "lattices: the model finds no stable fcc Ni within 16%"),
        ],
    )
    def test_what_a_model_cannot_do_is_refused(self, tmp_path, model, changes, says):
        with pytest.raises(ConfigError, match=says):
            make_screen(model, small(**changes), tmp_path / "out", {})
        assert not list(tmp_path.iterdir())

    def test_short_range_order_is_noted(self, tmp_path):
        made = make_screen(EAM(), small(warren_cowley={"Ni-Pd": -0.1}), tmp_path / "out", {})
        assert any("short-range order is missed by" in note for note in made.document["notes"])

    def test_the_page_opens_with_the_best_and_shows_no_empty_column(self, tmp_path, monkeypatch):
        monkeypatch.setattr("domains.materials.screening.page.FIRST_ROWS", 2)
        make_screen(EAM(), small(), tmp_path / "out", {})
        page = (tmp_path / "out" / "screen.html").read_text()
        rows = len(rows_of(tmp_path / "out"))
        assert rows > 2
        assert f"The best 2 of {rows}" in page
        opening, _, unfolded = page.partition("<details>")
        assert opening.count("<tr>") == 1 + 2
        assert unfolded.count("<tr>") == 1 + rows
        assert ">enthalpy<" in page
        assert ">spread<" not in page  # a single model has none
        assert ">-0.0<" not in page
        pictures = sorted((tmp_path / "out" / "figures").glob("*.png"))
        wide = [round(110 * imread(picture).shape[1] / 160) for picture in pictures]  # 160 pixels an inch are drawn
        assert sorted(map(int, re.findall(r"--wide: (\d+)px", page))) == sorted(wide)
        assert len(set(wide)) > 1

    def test_pictures_of_four_elements(self, tmp_path):
        model = EAM()
        model.schema = dataclasses.replace(SCHEMA, elements=(28, 29, 46, 47))
        model.statistics = dataclasses.replace(
            statistics(),
            references=torch.zeros(1, 4).double(),
            element_counts=torch.ones(4),
            shortest=torch.full((4, 4), 2.2, dtype=torch.float64),
        )
        config = small(elements="NiCuPdAg", order=(1, 2, 3, 4), strains=(0.0,), decorations=1)
        make_screen(model, config, tmp_path / "out", {})
        names = {path.stem for path in (tmp_path / "out" / "figures").iterdir()}
        assert names == {"ranked", "ternary", "quaternary", "triples", "pairs"}
        for name in names:
            assert imread(tmp_path / "out" / "figures" / f"{name}.png").std() > 0.02


class TestTrainedModel:
    def test_the_domain_screens(self, tmp_path, monkeypatch):
        """From a trained ensemble's record to the folder, without a crystal of its own: it was not trained."""
        domain = MaterialsDomain()
        assert isinstance(domain, Screens)
        assert domain.screen_config is ScreenConfig
        # an untrained model has no equilibrium; each curve is taken for a valley at its middle
        monkeypatch.setattr("domains.materials.screening.equilibrium.downhill", lambda curve, start: start)
        made = domain.screen(trained(3, tmp_path), small())
        out = tmp_path / "screens" / "NiCuPd-3-fcc"
        assert made.document["path"] == str(out)
        assert all(float(row["spread"]) > 0 for row in rows_of(out))
        record = json.loads((out / "screen.json").read_text())
        assert record["model"]["members"] == 3
        assert len(record["settings"]["weights"]) == 16

    def test_members_are_what_the_prediction_averages(self, tmp_path):
        predictor = Predictor(trained(3, tmp_path))
        sites = Sites("fcc", (2, 1, 1), predictor.cutoff)
        generator = np.random.default_rng(0)
        samples = [sites.sample(generator.choice(NUMBERS, len(sites)), a) for a in (3.5, 3.6, 3.9)]
        values = predictor.member_values(samples, "energy")
        assert values.shape == (3, 3)
        for predicted, members in zip(predictor.predict_samples(samples, gradients=False), values.T, strict=True):
            assert predicted["energy"] == pytest.approx(members.mean(), abs=1e-4)
            assert predicted["energy_std"] == pytest.approx(members.std(ddof=1), rel=1e-3)

    def test_weights_have_a_fingerprint(self, tmp_path):
        one, same, other = trained(1, tmp_path), trained(1, tmp_path), trained(1, tmp_path)
        with torch.no_grad():
            next(other.model.parameters()).add_(1e-3)
        assert screening.fingerprint(one) == screening.fingerprint(same) != screening.fingerprint(other)

    def test_a_model_without_energies_is_refused(self, tmp_path):
        opened = trained(1, tmp_path, hardness=TargetConfig(kind="graph"))
        with pytest.raises(ConfigError, match="run: the model has neither an energy"):
            screen(opened, small())
