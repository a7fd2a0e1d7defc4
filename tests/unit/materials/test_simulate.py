"""The command that makes labeled alloys, and the two sets that are committed."""

from __future__ import annotations

import dataclasses
import io
import json
import lzma
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase.calculators.emt import EMT
from ase.data import atomic_numbers

from domains.materials.data.structure import Structure
from domains.materials.simulation import simulate as simulating
from domains.materials.simulation.labeling import EAMLabeler, EMTLabeler, pure_crystal, pure_structure
from domains.materials.simulation.simulate import simulate, structures
from domains.materials.simulation.simulate_config import SimulateConfig
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.data.staging import StagedParts

ROOT = Path(__file__).parents[3]
DATA = ROOT / "data" / "materials"
HEA, CHGNET = DATA / "hea_eam.extxyz.xz", DATA / "crfeconimn_chgnet.extxyz.xz"
FAMILIES = ({"Co", "Cu", "Fe", "Ni", "Pd"}, {"Mo", "Ta", "Ti", "W", "Zr"})
MEBIBYTE = 2**20


def read(path: Path) -> list[ase.Atoms]:
    """All frames; decompressed first, because ASE goes back and forth in what it reads."""
    return ase.io.read(io.StringIO(unpacked(path).decode()), ":", format="extxyz")


def unpacked(path: Path) -> bytes:
    raw = path.read_bytes()
    return lzma.decompress(raw) if path.suffix == ".xz" else raw


def small(folder: Path, **changes) -> SimulateConfig:
    return SimulateConfig(**{"out": str(folder / "some.extxyz.xz"), "count": 7, **changes})


@pytest.fixture(scope="module")
def alloys():
    return read(HEA)


@pytest.fixture(scope="module")
def magnets():
    return read(CHGNET)


class TestConfig:
    def test_the_configuration_file_says_the_defaults(self):
        values = yaml.safe_load((ROOT / "conf/simulate/materials.yaml").read_text())
        assert build(SimulateConfig, values) == SimulateConfig()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("out", "alloys.zarr"),
            ("count", 0),
            ("labeler", "dft"),
            ("families", ()),
            ("families", ("CoCuFe",)),
            ("families", ("sc:CoCuFe",)),
            ("families", ("fcc:CoCrFe",)),
            ("families", ("fcc:not a formula",)),
            ("orders", (6,)),
            ("orders", (0, 1)),
            ("orders", ()),
            ("compositions", ("Fe20Mo80",)),
            ("compositions", ("Fe20Cr80",)),
            ("supercells", ()),
            ("supercells", ((1, 1, 1),)),
            ("supercells", ((2, 0, 2),)),
            ("rattle", -0.1),
            ("rattle", 1.0),
            ("strain", 0.5),
            ("shear", -1),
            ("vacancies", 1.5),
            ("short_range_order", -0.5),
            ("order_strength", 2),
            ("seed", -1),
            ("workers", -1),
        ],
    )
    def test_a_value_that_cannot_work_is_named(self, field, value):
        with pytest.raises(ConfigError) as caught:
            build(SimulateConfig, {field: value})
        assert caught.value.key.split(".")[0] == field
        assert caught.value.hint or "must be one of" in caught.value.message

    def test_orders_that_no_family_has_are_left_out(self):
        assert SimulateConfig(families=("fcc:CuNi",)).recipe().orders == (1, 2)

    def test_emt_knows_fewer_elements(self):
        with pytest.raises(ConfigError, match="emt does not know 'Co'"):
            SimulateConfig(labeler="emt")

    def test_a_file_is_not_replaced_unasked(self, tmp_path):
        (tmp_path / "some.extxyz.xz").touch()
        with pytest.raises(ConfigError, match="overwrite=true"):
            simulate(small(tmp_path))


class TestSimulate:
    def test_labels_belong_to_what_is_written(self, tmp_path):
        frames = read(simulate(small(tmp_path)))
        assert len(frames) == 7
        bare = [Structure.from_atoms(ase.Atoms(f.numbers, f.positions, cell=f.cell, pbc=True)) for f in frames]
        for frame, labels in zip(frames, EAMLabeler().label(bare), strict=True):
            assert frame.get_potential_energy() == pytest.approx(labels["energy"], abs=0.51e-5)
            np.testing.assert_allclose(frame.get_forces(), labels["forces"], rtol=0, atol=0.51e-4)
            np.testing.assert_allclose(frame.get_stress(voigt=False), labels["stress"], rtol=0, atol=0.51e-6)
            np.testing.assert_allclose(frame.arrays["eam_density"], labels["eam_density"], rtol=0, atol=0.51e-4)
            pure = np.mean([pure_crystal("eam", symbol).energy for symbol in frame.get_chemical_symbols()])
            assert frame.info["mixing_enthalpy"] == pytest.approx(labels["energy"] / len(frame) - pure, abs=0.51e-5)
            assert frame.info["group"].split(" ")[0] == "-".join(sorted(set(frame.get_chemical_symbols())))

    def test_undisturbed_elements_do_not_mix(self, tmp_path):
        calm = {key: 0.0 for key in ("rattle", "strain", "shear", "vacancies")}
        for labeler, families in (("eam", ("bcc:W",)), ("emt", ("fcc:PdAu",))):
            config = small(tmp_path, labeler=labeler, families=families, orders=(1,), count=2, **calm)
            for structure in structures(config, 0, 2):
                assert structure.labels["mixing_enthalpy"] == pytest.approx(0, abs=2e-5)
                assert np.abs(structure.labels["stress"]).max() < 1e-4

    def test_emt_is_ase_s(self, tmp_path):
        config = small(
            tmp_path, labeler="emt", families=("fcc:AlAuCuPd",), orders=(2, 3), out=str(tmp_path / "a.extxyz")
        )
        for frame in read(simulate(config)):
            atoms = frame.copy()
            atoms.calc = EMT()
            assert frame.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
            np.testing.assert_allclose(frame.get_forces(), atoms.get_forces(), atol=1e-4)
            np.testing.assert_allclose(frame.get_stress(), atoms.get_stress(), atol=1e-6)
            assert "eam_density" not in frame.arrays

    def test_a_stopped_run_goes_on_and_ends_alike(self, tmp_path, monkeypatch):
        monkeypatch.setattr(simulating, "PART", 3)
        straight = simulate(small(tmp_path / "straight"))
        config, made = small(tmp_path / "stopped"), []
        whole = simulating.structures

        def stopping(config, first, last):
            made.append(first)
            if made == [0, 3]:
                raise KeyboardInterrupt
            return whole(config, first, last)

        monkeypatch.setattr(simulating, "structures", stopping)
        with pytest.raises(KeyboardInterrupt):
            simulate(config)
        assert not Path(config.out).exists()
        path = simulate(config)
        assert made == [0, 3, 3, 6]
        assert unpacked(path) == unpacked(straight)
        assert sorted(p.name for p in path.parent.iterdir()) == ["some.extxyz.xz", "some.extxyz.xz.json"]

    def test_parts_of_other_settings_are_not_used(self, tmp_path):
        config = small(tmp_path)
        part = StagedParts(Path(config.out), simulating._settings(config), ".extxyz").path(0)
        part.write_text("1\nof another run\nCu 0 0 0\n")
        same = dataclasses.replace(config, workers=3, overwrite=True)
        assert StagedParts(Path(config.out), simulating._settings(same), ".extxyz").path(0) == part
        assert part.exists()
        assert len(read(simulate(dataclasses.replace(config, seed=1)))) == 7

    def test_seeds_differ_and_come_back(self, tmp_path):
        config = small(tmp_path)
        first, again, other = (structures(dataclasses.replace(config, seed=s), 0, 3) for s in (0, 0, 1))
        for one, two, three in zip(first, again, other, strict=True):
            np.testing.assert_array_equal(one.labels["forces"], two.labels["forces"])
            assert one.labels["energy"] != three.labels["energy"]

    @pytest.mark.slow
    def test_workers_make_the_same(self, tmp_path, monkeypatch):
        alone = simulate(small(tmp_path / "alone", count=450))
        shared = simulate(small(tmp_path / "shared", count=450, workers=2))
        assert unpacked(alone) == unpacked(shared)

    def test_says_how_it_was_made(self, tmp_path):
        path = simulate(small(tmp_path, seed=5))
        record = json.loads(path.with_name(f"{path.name}.json").read_text())
        assert record["title"] == "EAM-labeled alloys"
        assert "10.1103/PhysRevB.69.144113" in record["source"]
        assert record["settings"]["seed"] == 5


class TestPureCrystals:
    def test_emt_lattice_constant_by_a_scan(self):
        found = pure_crystal("emt", "Cu")
        scan = np.linspace(found.a - 0.01, found.a + 0.01, 21)
        cells = [pure_structure("Cu", "fcc", a, a) for a in scan]
        energies = [float(labels["energy"]) / 4 for labels in EMTLabeler().label(cells)]
        assert np.argmin(energies) == 10
        assert energies[10] == pytest.approx(found.energy, abs=1e-9)


class TestCommittedAlloys:
    def test_is_small(self):
        assert HEA.stat().st_size <= 4 * MEBIBYTE

    def test_has_all_orders_in_both_families(self, alloys):
        counts = np.zeros((2, 6), dtype=int)
        for frame in alloys:
            symbols = set(frame.get_chemical_symbols())
            family = next(number for number, elements in enumerate(FAMILIES) if symbols <= elements)
            assert frame.info["group"].split(" ")[1] == ("fcc", "bcc")[family]
            counts[family, len(symbols)] += 1
        assert counts[:, 1:].min() > 200
        assert len({frame.info["group"].split(" ")[0] for frame in alloys}) == 2 * 31

    def test_labels_are_there_and_plausible(self, alloys):
        forces = np.concatenate([frame.get_forces() for frame in alloys])
        assert 0.5 < forces.std() < 1.5
        assert np.abs(forces).max() < 20
        assert all(abs(frame.info["mixing_enthalpy"]) < 1 for frame in alloys)
        assert all(np.abs(frame.get_stress()).max() < 0.4 for frame in alloys)
        assert all((frame.arrays["eam_density"] > 5).all() for frame in alloys)
        assert len({frame.info["name"] for frame in alloys}) == len(alloys)

    def test_the_command_in_the_readme_makes_it(self, alloys):
        """Its first structures, within one unit of the last digit; processors differ in the last bits of a float."""
        settings = json.loads(HEA.with_name(f"{HEA.name}.json").read_text())["settings"]
        settings.pop("versions")
        config = build(SimulateConfig, settings)
        assert config == dataclasses.replace(SimulateConfig(), count=config.count)
        assert len(alloys) == config.count
        for frame, structure in zip(alloys[:5], structures(config, 0, 5), strict=True):
            np.testing.assert_array_equal(frame.numbers, structure.atomic_numbers)
            np.testing.assert_allclose(frame.positions, structure.positions, rtol=0, atol=1.1e-4)
            np.testing.assert_allclose(frame.get_forces(), structure.labels["forces"], rtol=0, atol=5e-3)


class TestCommittedMagnets:
    def test_is_small_and_has_all_labels(self, magnets):
        assert CHGNET.stat().st_size <= MEBIBYTE
        assert 300 <= len(magnets) <= 600
        assert {len(set(frame.numbers)) for frame in magnets} == {1, 2, 3, 4, 5}
        for frame in magnets:
            assert {"energy", "forces", "stress", "magmoms"} <= set(frame.calc.results)
            assert 15 <= len(frame) <= 32

    def test_moments_are_those_of_the_elements(self, magnets):
        """Iron carries the largest moments, nickel hardly any; CHGNet gives sizes without signs."""
        of = {
            symbol: np.concatenate([f.get_magnetic_moments()[f.numbers == atomic_numbers[symbol]] for f in magnets])
            for symbol in ("Cr", "Mn", "Fe", "Co", "Ni")
        }
        means = {symbol: values.mean() for symbol, values in of.items()}
        assert max(means, key=means.__getitem__) == "Fe"
        assert min(means, key=means.__getitem__) == "Ni"
        assert all((values >= 0).all() and values.max() < 4 for values in of.values())

    def test_stress_has_ase_s_sign(self, magnets):
        """A larger cell pulls more: its stress is larger."""
        nickel = [frame for frame in magnets if frame.info["group"].startswith("Ni fcc")]
        volume = [frame.get_volume() / len(frame) for frame in nickel]
        tension = [np.trace(frame.get_stress(voigt=False)) / 3 for frame in nickel]
        assert np.corrcoef(volume, tension)[0, 1] > 0.8
