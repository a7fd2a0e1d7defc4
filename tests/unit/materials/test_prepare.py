import lzma
from pathlib import Path

import numpy as np
import pytest
import yaml

from domains.materials.data import prepare as preparing
from domains.materials.data.prepare import PrepareConfig, prepare
from domains.materials.data.samples import MaterialsDataConfig, open_or_prepare
from domains.materials.data.splits import Described, assign
from domains.materials.data.store import SPLITS, MaterialsStore
from sciml.core.config import build
from sciml.core.errors import ConfigError, DataError

from .alloy_files import alloy, extxyz, mixed_set, relabeled

EVERYTHING = {"train": 1.0, "valid": 0.0, "test": 0.0}


def made(tmp_path, frames, **options):
    path = extxyz(tmp_path / "set.extxyz", frames)
    config = PrepareConfig(path=path, out=str(tmp_path / "store"), **{"splits": EVERYTHING, **options})
    return MaterialsStore.open(prepare(config))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 5, 8])
def test_an_interrupted_run_goes_on_and_ends_the_same(tmp_path, monkeypatch, after):
    late = relabeled(alloy(99), magmoms=np.ones(8))
    one = extxyz(tmp_path / "a.extxyz", mixed_set(4))
    two = extxyz(tmp_path / "b.extxyz", [*mixed_set(4), late])
    config = {"path": [one, two], "splits": {"train": 0.6, "valid": 0.2, "test": 0.2}}
    straight = prepare(PrepareConfig(**config, out=str(tmp_path / "straight")))
    monkeypatch.setattr(preparing, "RECORD_EDGES", 500)  # two structures or so
    plain, seen = preparing.neighbor_list, []

    def dying(structure, cutoff):
        seen.append(structure.name)
        if len(seen) == after:
            raise Killed
        return plain(structure, cutoff)

    monkeypatch.setattr(preparing, "neighbor_list", dying)
    with pytest.raises(Killed):
        prepare(PrepareConfig(**config, out=str(tmp_path / "resumed")))
    assert not (tmp_path / "resumed").exists()
    resumed = prepare(PrepareConfig(**config, out=str(tmp_path / "resumed")))
    assert contents(resumed) == contents(straight)
    assert len(seen) - 9 <= 2  # it did not begin anew
    assert {p.name for p in tmp_path.iterdir()} == {"a.extxyz", "b.extxyz", "straight", "resumed"}


def test_what_was_found_is_told_with_units_and_sign(tmp_path, capsys):
    made(tmp_path, mixed_set(6), labels={"stress": {"key": "stress", "unit": "eV/A^3"}})
    told = capsys.readouterr().err
    assert "6 structures, 48 atoms of Ni, Cu" in told
    assert "energy from 'energy' in eV (assumed); 6 of 6 structures" in told
    assert "stress from 'stress' in eV/A^3, ASE's sign" in told
    assert "reference energies (main), eV: Ni " in told
    assert "splits: train 6, valid 0, test 0" in told


def test_a_store_is_not_overwritten_unasked(tmp_path):
    made(tmp_path, mixed_set(3))
    with pytest.raises(ConfigError, match=r"out: .* is there already; .*overwrite=true"):
        made(tmp_path, mixed_set(3))
    assert len(made(tmp_path, mixed_set(6), overwrite=True)) == 6
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="is no store of ours"):
        prepare(PrepareConfig(path=str(tmp_path / "set.extxyz"), out=str(tmp_path / "mine"), overwrite=True))


def test_bad_data_leave_nothing_behind(tmp_path):
    close = alloy(1)
    close.positions[1] = close.positions[0] + 0.1
    with pytest.raises(DataError, match=r"set\.extxyz@1: atoms 0 and 1 are 0.17 A apart"):
        made(tmp_path, [alloy(0), close])
    assert {p.name for p in tmp_path.iterdir()} == {"set.extxyz"}


def test_structures_without_any_label_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no structure has a label; name one with labels\.energy=KEY"):
        made(tmp_path, [relabeled(alloy(0), energy=None, forces=None, stress=None)])


@pytest.mark.parametrize(
    ("name", "factor", "part", "said"),
    [
        ("energy", 1 / 27.2114, 3, "energies per atom of 4 of 12 .* factor between eV and Ha"),
        ("energy", 1000.0, 3, "factor between eV and meV"),
        ("energy", 96.485, 3, "factor between eV and kJ/mol"),
        ("forces", 1000.0, 1, r"largest component of forces is .* in meV/A\?"),
        ("stress", 160.2 * 10, 1, r"largest component of stress is .* in GPa or kbar\?"),
        ("stress", 160.2 * 10, 3, "4 of 12 structures have stress above 2 eV/A"),
    ],
)
def test_mixed_units_are_suspected(tmp_path, name, factor, part, said):
    frames = [
        relabeled(a, **{name: a.calc.results[name] * factor}) if n % part == 0 else a
        for n, a in enumerate(cohesive(alloy(n)) for n in range(12))
    ]
    named = "|".join(str(n) for n in range(0, 12, part))
    with pytest.raises(DataError, match=f"set\\.extxyz@({named}): mixed units suspected.*{said}"):
        made(tmp_path, frames)
    assert len(made(tmp_path, frames, check_units=False)) == 12


def cohesive(atoms):
    """EMT's energies begin at zero; real ones are some electron volts an atom, and hot metals are under stress."""
    results = atoms.calc.results
    return relabeled(atoms, energy=results["energy"] - 4.0 * len(atoms), stress=results["stress"] + 0.01)


def test_data_sets_of_two_methods_need_not_share_a_zero(tmp_path):
    frames = [cohesive(alloy(n)) for n in range(12)]
    total = [relabeled(a, energy=a.get_potential_energy() - 45000.0 * len(a)) for a in frames]
    path = {"a": extxyz(tmp_path / "a.extxyz", frames), "b": extxyz(tmp_path / "b.extxyz", total)}
    assert len(open_or_prepare(MaterialsDataConfig(path=path, cache=str(tmp_path)))) == 24
    forces = [relabeled(a, forces=a.get_forces() * 1000) for a in frames]
    path["b"] = extxyz(tmp_path / "c.extxyz", forces)
    said = r"c\.extxyz@\d+: mixed units suspected.*data\.labels\.forces=.* or data\.check_units=false"
    with pytest.raises(DataError, match=said):  # named as training has them
        open_or_prepare(MaterialsDataConfig(path=path, cache=str(tmp_path)))
    with pytest.raises(DataError, match=r"say the unit with labels\.forces=.*, or check_units=false"):
        prepare(PrepareConfig(path=path, out=str(tmp_path / "store")))


def test_free_atoms_and_real_spreads_are_no_mixture(tmp_path):
    frames = [cohesive(alloy(n)) for n in range(12)]
    lone = relabeled(alloy(0)[:1], energy=-0.15, forces=np.zeros((1, 3)), stress=None)
    assert len(made(tmp_path, [*frames, lone, lone])) == 14


CONF = Path(__file__).parents[3] / "conf"


def test_the_configuration_files_say_what_the_dataclasses_do():
    values = yaml.safe_load((CONF / "prepare" / "materials.yaml").read_text())
    path = str(Path("a.extxyz").absolute())
    assert build(PrepareConfig, {**values, "path": path}) == PrepareConfig(path=path)
    branches = build(PrepareConfig, {**values, "path": {"dft": "a.extxyz", "eam": "b.extxyz"}})
    assert branches.target.name == "dft-eam-store"
    for file in (CONF / "data").glob("materials_*.yaml"):
        build(MaterialsDataConfig, yaml.safe_load(file.read_text()), prefix="data")


@pytest.mark.parametrize("name", ["hea_eam", "crfeconimn_chgnet"])
def test_the_committed_sets_are_readable_and_plausible(tmp_path, name):
    path = CONF.parent / "data" / "materials" / f"{name}.extxyz.xz"
    with lzma.open(path, "rt") as file:  # the first fifty of each, to be quick
        frames = [line for _, line in zip(range(50 * 34), file, strict=False)]
    starts = [n for n, line in enumerate(frames) if line.strip().isdigit()]
    (tmp_path / "set.extxyz").write_text("".join(frames[: starts[-1]]))
    config = PrepareConfig(path=str(tmp_path / "set.extxyz"), out=str(tmp_path / "store"), splits=EVERYTHING)
    store = MaterialsStore.open(prepare(config))
    assert len(store) == len(starts) - 1
    assert {"energy", "forces", "stress"} <= set(store.schema.labels)


def described(groups, systems=None, keys=None):
    systems = systems or ["A"] * len(groups)
    keys = np.arange(len(groups)) if keys is None else np.array(keys)
    return Described(groups, systems, np.array([len(s.split("-")) for s in systems]), keys)


def sizes(split):
    return [int((split == n).sum()) for n in range(len(SPLITS))]


def test_shares_are_drawn_at_random_and_the_same_again():
    those = described(["g"] * 200)
    splits = {"train": 0.8, "valid": 0.1, "test": 0.1}
    one, *_ = assign(splits, "structure", 0, those)
    assert sizes(one) == [160, 20, 20]
    assert np.array_equal(one, assign(splits, "structure", 0, those)[0])
    assert not np.array_equal(one, assign(splits, "structure", 1, those)[0])
    assert sizes(assign({"train": 0.5, "valid": 0.1, "test": 0.1}, "structure", 0, those)[0]) == [100, 20, 20]


def test_lists_name_groups_systems_and_orders():
    those = described(
        ["Nb_AIMD", "Nb_Test", "NbTa_SS", "NbTa_SS", "MoNbTa", "Ta_AIMD"],
        ["Nb", "Nb", "Nb-Ta", "Nb-Ta", "Mo-Nb-Ta", "Ta"],
    )
    split, *_ = assign({"train": 1.0, "valid": ["*_Test"], "test": ["order:3"]}, "structure", 0, those)
    assert split.tolist() == [0, 1, 0, 0, 2, 0]
    split, *_ = assign({"train": ["order:1"], "valid": 0.0, "test": ["system:Ta-Nb"]}, "structure", 0, those)
    assert split.tolist() == [0, 0, 2, 2, -1, 0]
    split, *_ = assign({"train": ["group:*"], "valid": 0.0, "test": ["group:Nb*"]}, "structure", 0, those)
    assert split.tolist() == [2, 2, 2, 2, 0, 0]


def test_frames_that_are_the_same_stay_together():
    keys = np.repeat(np.arange(40), 3)
    split, dropped, _ = assign(
        {"train": 0.6, "valid": 0.2, "test": 0.2}, "structure", 0, described(["g"] * 120, keys=keys)
    )
    assert dropped == 0
    assert all(len(set(split[keys == key])) == 1 for key in range(40))
    groups = ["a", "a", "b", "b", "c"]
    split, dropped, _ = assign(
        {"train": ["a"], "valid": ["b"], "test": ["c"]}, "structure", 0, described(groups, keys=[1, 2, 1, 3, 3])
    )
    assert split.tolist() == [-1, 0, 1, -1, 2]
    assert dropped == 2


def test_whole_groups_are_drawn():
    groups = [f"g{n // 10}" for n in range(100)]
    split, *_ = assign({"train": 0.8, "valid": 0.1, "test": 0.1}, "group", 0, described(groups))
    assert sizes(split) == [80, 10, 10]
    assert all(len(set(split[10 * n : 10 * n + 10])) == 1 for n in range(10))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"splits": {"train": 0.9, "valid": 0.1}}, "splits: the split 'test' is missing"),
        ({"splits": {"train": 0.9, "valid": 0.1, "tets": 0}}, "unknown split 'tets'; did you mean 'test'"),
        ({"splits": {"train": 0.9, "valid": 0.2, "test": 0.2}}, "sum to at most 1"),
        ({"splits": {"train": "all", "valid": 0.2, "test": 0.2}}, "splits.train: 'all' is neither a share nor a list"),
        ({"split_by": "groups"}, "split_by must be one of .*, got 'groups'; did you mean 'group'"),
        ({"cutoff": 0}, "cutoff must be above 0, got 0; try cutoff=5"),
        ({"path": ""}, "path: no source is named"),
    ],
)
def test_wrong_options_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        build(PrepareConfig, {"path": "x.extxyz", **options})


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": 1.0, "valid": 0.0, "test": ["b"]}, "splits.test: no structure has the group 'b'"),
        ({"train": 1.0, "valid": 0.0, "test": ["system:Nb-Cu"]}, "no structure has the system 'Nb-Cu'"),
        ({"train": 1.0, "valid": 0.0, "test": ["sistem:Nb"]}, "splits.test must be one of .*, got 'sistem'"),
        ({"train": 0.9, "valid": 0.1, "test": ["group:*"]}, "splits.train: no structure is left for it"),
    ],
)
def test_splits_that_come_out_empty_are_refused(tmp_path, splits, said):
    with pytest.raises(ConfigError, match=said):
        made(tmp_path, mixed_set(3), splits=splits)
