"""Files as other programs write them give the same structures and labels as ASE's own."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase.db import connect
from ase.io import write

from domains.materials.data.findings import Findings
from domains.materials.data.readers.source import ReadOptions, read_structures
from sciml.core.errors import DataError

from .alloy_files import alloy, extxyz
from .test_readers import assert_same, read

KBAR = -0.1 / 160.21766208
FRAMES = [alloy(0), alloy(1, ("Cu",)), alloy(2, ("Al", "Cu"))]
SAME = [alloy(n) for n in range(3)]
for _atoms in SAME:
    _atoms.symbols = SAME[0].symbols


def results_of(atoms):
    return {name: np.asarray(value) for name, value in atoms.calc.results.items()}


def full(voigt):
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def under(names, atoms):
    """The same atoms with labels under other names: energy, forces, stress (or virial)."""
    energy, forces, stress = names
    results, bare = results_of(atoms), atoms.copy()
    bare.info[energy] = float(results["energy"])
    bare.arrays[forces] = results["forces"]
    virial = "virial" in stress.lower()
    bare.info[stress] = full(results["stress"]) * (-atoms.get_volume() if virial else 1.0)
    return bare


@pytest.mark.parametrize(
    "names",
    [
        ("REF_energy", "REF_forces", "REF_stress"),
        ("REF_energy", "REF_forces", "REF_virials"),
        ("dft_energy", "dft_force", "dft_virial"),
        ("DFT_energy", "DFT_forces", "DFT_stress"),
        ("energy", "force", "virial"),
        ("energy_dft", "forces_dft", "virials"),
        ("total_energy", "atomic_forces", "cauchy_stress"),
        ("Energy", "Forces", "Virial"),
        ("qm_energy", "qm_forces", "virial_tensor"),
    ],
)
def test_labels_go_by_many_names(tmp_path, names):
    assert_same(read(extxyz(tmp_path / "a.extxyz", [under(names, a) for a in FRAMES])), FRAMES)


def test_values_of_a_named_method_come_before_others(tmp_path):
    atoms = under(("REF_energy", "REF_forces", "REF_stress"), FRAMES[0])
    atoms.info["energy"] = 1.0
    atoms.info["MACE_energy"] = 2.0
    findings = Findings()
    path = extxyz(tmp_path / "a.extxyz", [atoms])
    (_, structure), *_ = read_structures(path, ReadOptions(), findings=findings)
    assert structure.labels["energy"] == pytest.approx(float(FRAMES[0].calc.results["energy"]))
    assert {"energy", "MACE_energy"} <= set(findings.unused)
    assert "'REF_energy'" in findings.sources("energy")


def test_what_a_model_says_and_gaps_are_no_labels(tmp_path):
    atoms, findings = FRAMES[0].copy(), Findings()
    atoms.calc = None
    atoms.info |= {
        "energy": -7.5,
        "energy_gap": 1.25,
        "gap_energy": -7.4,
        "virial": np.eye(3),
        "gap_virial": 2 * np.eye(3),
    }
    atoms.arrays |= {"force": np.full((8, 3), 0.1), "gap_force": np.full((8, 3), 0.2)}
    path = extxyz(tmp_path / "a.extxyz", [atoms])
    (_, structure), *_ = read_structures(path, ReadOptions(), findings=findings)
    assert structure.labels["energy"] == -7.5
    np.testing.assert_allclose(structure.labels["forces"], 0.1)
    np.testing.assert_allclose(structure.labels["stress"], -np.eye(3) / atoms.get_volume())
    assert set(findings.unused) == {"energy_gap", "gap_energy", "gap_virial", "gap_force"}


def test_moments_with_a_direction_are_left_aside_and_told(tmp_path):
    atoms, findings = FRAMES[0].copy(), Findings()
    atoms.calc = None
    atoms.info |= {"energy": -7.5, "charges": 1.0}
    atoms.arrays["magmoms"] = np.ones((8, 3))
    path = extxyz(tmp_path / "a.extxyz", [atoms])
    (_, structure), *_ = read_structures(path, ReadOptions(), findings=findings)
    assert set(structure.labels) == {"energy"}
    assert set(findings.unused) == {"charges", "magnetic_moments"}
    with pytest.raises(DataError, match=r"it needs \(8,\); name another key .* or leave it out with labels.*=null"):
        read(path, labels={"magnetic_moments": "magmoms"})
    assert set(read(path, labels={"magnetic_moments": None})[0].labels) == {"energy"}
    atoms.arrays["magmoms"] = np.arange(8.0)
    path = extxyz(tmp_path / "b.extxyz", [atoms])
    np.testing.assert_allclose(
        read(path, labels={"magnetic_moments": "magmoms"})[0].labels["magnetic_moments"], range(8)
    )


def test_what_is_not_used_is_told(tmp_path):
    atoms = FRAMES[0].copy()
    atoms.info |= {"energy_per_atom": -3.0, "charge": 1, "bandgap": 0.2}
    atoms.arrays["spin_up"] = np.ones(8)
    findings = Findings()
    (_, structure), *_ = read_structures(extxyz(tmp_path / "a.extxyz", [atoms]), findings=findings)
    assert dict(structure.labels) == {"energy": pytest.approx(-24.0)}
    assert set(findings.unused) == {"charge", "bandgap", "spin_up"}
    assert findings.lines()[0].startswith("found and not used: ")


def test_one_number_an_atom_may_be_called_charge_and_magmom(tmp_path):
    atoms = FRAMES[0].copy()
    atoms.arrays |= {"charge": np.linspace(-1, 1, 8), "dft_magmom": np.arange(8.0)}
    (structure,) = read(extxyz(tmp_path / "a.extxyz", [atoms]))
    assert set(structure.labels) == {"charges", "magnetic_moments"}


def pymatgen(atoms, cartesian=True):
    """A structure as pymatgen's as_dict writes it."""
    sites = [
        {"species": [{"element": s, "occu": 1}], "abc": list(f), "label": s, "properties": {}}
        | ({"xyz": list(x)} if cartesian else {})
        for s, f, x in zip(atoms.symbols, atoms.get_scaled_positions(wrap=False), atoms.positions, strict=True)
    ]
    lattice = {"matrix": atoms.cell.array.tolist(), "pbc": [True] * 3}
    return {"@module": "pymatgen.core.structure", "@class": "Structure", "lattice": lattice, "sites": sites}


def vasp_stress(atoms, six=None):
    stress = full(atoms.calc.results["stress"]) / KBAR
    return stress.tolist() if six is None else [stress[i, j] for i, j in six]


VASP_ORDER = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))
ASE_ORDER = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def snap(frames):
    return [
        {
            "structure": pymatgen(a), "group": "AIMD", "description": "a snapshot", "num_atoms": len(a),
            "outputs": {
                "energy": float(a.calc.results["energy"]), "forces": a.calc.results["forces"].tolist(),
                "virial_stress": vasp_stress(a, VASP_ORDER),
            },
        }
        for a in frames
    ]  # fmt: skip


def mptrj(frames):
    return {
        "mp-1": {
            f"mp-1-{n}": {
                "structure": pymatgen(a, cartesian=False), "uncorrected_total_energy": float(a.calc.results["energy"]),
                "corrected_total_energy": 7.0, "energy_per_atom": -9.0, "ef_per_atom": -0.1, "mp_id": "mp-1",
                "force": a.calc.results["forces"].tolist(), "stress": vasp_stress(a), "magmom": None, "bandgap": 0.0,
            }
            for n, a in enumerate(frames)
        }
    }  # fmt: skip


def matpes(frames):
    return [
        {
            "structure": pymatgen(a), "energy": float(a.calc.results["energy"]), "matpes_id": f"matpes-{n}",
            "forces": a.calc.results["forces"].tolist(), "stress": vasp_stress(a, ASE_ORDER), "functional": "PBE",
            "bader_charges": None, "cohesive_energy_per_atom": -1.0, "elements": ["Cu"], "nsites": 8,
        }
        for n, a in enumerate(frames)
    ]  # fmt: skip


def chgnet(frames):
    return {
        "structures": [pymatgen(a) for a in frames],
        "energies_per_atom": [float(a.calc.results["energy"]) / len(a) for a in frames],
        "forces": [a.calc.results["forces"].tolist() for a in frames],
        "stresses": [vasp_stress(a) for a in frames],
    }


def vasp_tasks(frames):
    steps = [
        {
            "structure": pymatgen(a), "e_fr_energy": 0.0, "e_0_energy": float(a.calc.results["energy"]),
            "forces": a.calc.results["forces"].tolist(), "stress": vasp_stress(a),
        }
        for a in frames
    ]  # fmt: skip
    return {"calcs_reversed": [{"output": {"ionic_steps": steps}}]}


def fitsnap(frames):
    data = [
        {
            "Lattice": a.cell.array.tolist(), "Positions": a.positions.tolist(), "AtomTypes": list(a.symbols),
            "NumAtoms": len(a), "Energy": float(a.calc.results["energy"]), "Forces": a.calc.results["forces"].tolist(),
            "Stress": (1e3 * np.array(vasp_stress(a))).tolist(),
        }
        for a in frames
    ]  # fmt: skip
    return {"Dataset": {"Data": data, "EnergyStyle": "electronvolt", "StressStyle": "bar", "Label": "strained"}}


@pytest.mark.parametrize("dialect", [snap, mptrj, matpes, chgnet, vasp_tasks, fitsnap])
def test_json_of_the_field(tmp_path, dialect):
    (tmp_path / "a.json").write_text(json.dumps(dialect(FRAMES)))
    assert_same(read(tmp_path / "a.json"), FRAMES)


def matgl(frames):
    """Labels one below, beside the structures."""
    of = chgnet(frames)
    return {"structures": of.pop("structures"), "labels": of}


@pytest.mark.parametrize("dialect", [snap, mptrj, matpes, chgnet, matgl])
def test_json_of_the_field_names_only_what_is_not_used(tmp_path, dialect):
    (tmp_path / "a.json").write_text(json.dumps(dialect(FRAMES)))
    findings = Findings()
    first, *_ = [one for _, one in read_structures(str(tmp_path / "a.json"), findings=findings)]
    np.testing.assert_allclose(first.labels["energy"], FRAMES[0].calc.results["energy"])
    np.testing.assert_allclose(first.labels["forces"], FRAMES[0].calc.results["forces"])
    assert not set(findings.unused) & {"energy", "forces", "stress", "magmom"}
    # another energy than the one that is taken is told of
    assert {"energy_per_atom", "corrected_total_energy"} <= set(findings.unused) or dialect is not mptrj


def test_json_compressed_by_line_and_after_a_comment(tmp_path):
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        file.write(json.dumps(matpes(FRAMES)))
    with lzma.open(tmp_path / "b.json.xz", "wt") as file:
        file.write("# file /home/me/a.json\n" + json.dumps(fitsnap(FRAMES)))
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(record) for record in matpes(FRAMES)))
    for name in ("a.json.gz", "b.json.xz", "c.jsonl"):
        assert_same(read(tmp_path / name), FRAMES)


def test_jarvis_atoms_and_moments_of_sites(tmp_path):
    atoms = FRAMES[0]
    record = {
        "jid": "JVASP-1",
        "atoms": {"lattice_mat": atoms.cell.array.tolist(), "elements": list(atoms.symbols), "cartesian": True}
        | {"coords": atoms.positions.tolist()},
        "total_energy": float(atoms.calc.results["energy"]),
    }
    structure = pymatgen(atoms)
    for number, site in enumerate(structure["sites"]):
        site["properties"] = {"magmom": 0.1 * number}
    (tmp_path / "a.json").write_text(json.dumps([record, {"structure": structure, "energy": -1.0}]))
    first, second = read(tmp_path / "a.json")
    np.testing.assert_allclose(first.positions, atoms.positions)
    assert first.labels["energy"] == pytest.approx(float(atoms.calc.results["energy"]))
    np.testing.assert_allclose(second.labels["magnetic_moments"], 0.1 * np.arange(8))


def test_json_without_structures_and_sites_that_are_shared(tmp_path):
    (tmp_path / "a.json").write_text('{"title": "about the data", "seeds": [1, 2]}')
    with pytest.raises(DataError, match="no structure is found in this JSON"):
        read(tmp_path / "a.json")
    record = matpes(FRAMES[:1])[0]
    record["structure"]["sites"][3]["species"] = [{"element": "Cu", "occu": 0.5}, {"element": "Ni", "occu": 0.5}]
    (tmp_path / "b.json").write_text(json.dumps([record]))
    with pytest.raises(DataError, match=r"b.json@0: site 3 is shared by several elements"):
        read(tmp_path / "b.json")


def test_databases_of_ase_as_json(tmp_path):
    with connect(tmp_path / "a.json") as database:
        for atoms in FRAMES:
            database.write(atoms, note="kept")
    assert_same(read(tmp_path / "a.json"), FRAMES)


def test_aselmdb(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    import zlib

    from ase.db.row import AtomsRow
    from ase.io.jsonio import encode

    with (
        lmdb.open(str(tmp_path / "a.aselmdb"), subdir=False, map_size=2**24) as database,
        database.begin(write=True) as transaction,
    ):
        for number, atoms in enumerate(FRAMES, start=1):
            row = AtomsRow(atoms)
            stored = {key: getattr(row, key) for key in ("numbers", "positions", "cell", "pbc", "energy", "forces")}
            stored |= {"stress": row.stress, "calculator": "unknown", "calculator_parameters": {}, "ctime": 0}
            stored |= {"mtime": 0, "user": "", "key_value_pairs": {}, "data": {}}
            transaction.put(str(number).encode(), zlib.compress(encode(stored).encode()))
        transaction.put(b"nextid", zlib.compress(b"4"))
    assert_same(read(tmp_path / "a.aselmdb"), FRAMES)


def deepmd(folder: Path, frames, suffix="npy"):
    """A system of DeepMD-kit."""
    names = sorted(set(frames[0].symbols))
    inside = folder / "set.000" if suffix == "npy" else folder
    inside.mkdir(parents=True)
    (folder / "type_map.raw").write_text("\n".join(names))
    (folder / "type.raw").write_text("\n".join(str(names.index(s)) for s in frames[0].symbols))
    arrays = {
        "coord": [a.positions.ravel() for a in frames],
        "box": [a.cell.array.ravel() for a in frames],
        "energy": [float(a.calc.results["energy"]) for a in frames],
        "force": [a.calc.results["forces"].ravel() for a in frames],
        "virial": [-a.get_volume() * full(a.calc.results["stress"]).ravel() for a in frames],
    }
    for name, values in arrays.items():
        if suffix == "npy":
            np.save(inside / f"{name}.npy", np.array(values))
        else:
            np.savetxt(inside / f"{name}.raw", np.array(values), fmt="%.12g")


def test_folders_of_deepmd(tmp_path):
    deepmd(tmp_path / "sets" / "one", SAME[:2])
    deepmd(tmp_path / "sets" / "two", FRAMES[2:])
    deepmd(tmp_path / "raw" / "one", SAME, "raw")
    structures = read(tmp_path / "sets")
    assert_same(structures, [*SAME[:2], FRAMES[2]])
    assert [s.group for s in structures] == ["one", "one", "two"]
    assert_same(read(tmp_path / "raw"), SAME)
    (tmp_path / "raw" / "one" / "type_map.raw").unlink()
    assert_same(read(tmp_path / "raw", species=sorted(set(SAME[0].symbols))), SAME)


def arrays_of(frames):
    """The arrays of structures of one composition."""
    return {
        "R": np.array([a.positions for a in frames]),
        "Z": frames[0].numbers,
        "cell": np.array([a.cell.array for a in frames]),
        "E": np.array([float(a.calc.results["energy"]) for a in frames]),
        "F": np.array([a.calc.results["forces"] for a in frames]),
        "stress": np.array([full(a.calc.results["stress"]) for a in frames]),
    }


def test_npz_of_one_composition_and_padded_ones(tmp_path):
    stresses = np.array([full(a.calc.results["stress"]) for a in SAME])
    labels = {"F": np.array([a.calc.results["forces"] for a in SAME]), "stress": stresses}
    energies = np.array([[float(a.calc.results["energy"])] for a in SAME])
    cells = np.array([a.cell.array for a in SAME])
    common = {"R": np.array([a.positions for a in SAME]), "cell": cells, "E": energies, **labels}
    np.savez(tmp_path / "a.npz", z=SAME[0].numbers, **common)
    assert_same(read(tmp_path / "a.npz"), SAME)
    np.savez(tmp_path / "b.npz", z=np.array([a.numbers for a in SAME]), pbc=np.array([True] * 3), **common)
    assert_same(read(tmp_path / "b.npz"), SAME)
    water = {"coords": np.zeros((2, 3, 3)) + np.eye(3), "nuclear_charges": np.array([8, 1, 1])}
    np.savez(tmp_path / "c.npz", energies=np.ones(2), forces=np.ones((2, 3, 3)), old_indices=np.arange(2), **water)
    assert read(tmp_path / "c.npz")[1].labels["energy"] == pytest.approx(0.0433641)
    np.savez(tmp_path / "d.npz", x=np.ones(3))
    with pytest.raises(DataError, match=r"it holds x; needed are positions .* and elements"):
        read(tmp_path / "d.npz")


def test_hdf5_of_mace_and_by_composition(tmp_path):
    with h5py.File(tmp_path / "mace.h5", "w") as file:
        batch = file.create_group("config_batch_0")
        for number, atoms in enumerate(FRAMES):
            one = batch.create_group(f"config_{number}")
            one.update({"atomic_numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array})
            one.update({"pbc": np.array([True] * 3), "config_type": "Default", "weight": 1.0})
            properties = one.create_group("properties")
            properties.update({"energy": atoms.calc.results["energy"], "forces": atoms.calc.results["forces"]})
            properties.update({"stress": atoms.calc.results["stress"], "dipole": "None"})
            one.create_group("property_weights").update({"energy": 1.0, "forces": 1.0})
    structures = read(tmp_path / "mace.h5")
    assert_same(structures, FRAMES)
    assert {s.group for s in structures} == {"Default"}
    with h5py.File(tmp_path / "sets.h5", "w") as file:
        for name, frames in (("first", SAME), ("second", FRAMES[1:2])):
            group = file.create_group(name)
            group["species"] = np.array(list(frames[0].symbols), dtype="S2")
            group["coordinates"] = np.array([a.positions for a in frames])
            group["cell"] = np.array([a.cell.array for a in frames])
            group["energies"] = np.array([float(a.calc.results["energy"]) for a in frames])
            group["forces"] = np.array([a.calc.results["forces"] for a in frames])
            group["virials"] = np.array([-a.get_volume() * full(a.calc.results["stress"]) for a in frames])
    assert_same(read(tmp_path / "sets.h5"), [*SAME, FRAMES[1]])


def test_an_unknown_format_is_not_called_damaged(tmp_path):
    (tmp_path / "a.xyz_nobody_knows").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="a format that is not known; known are extxyz"):
        read(tmp_path / "a.xyz_nobody_knows")
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match="a pickle may run any program and is not read"):
        read(tmp_path / "a.pkl")
    write(tmp_path / "a.traj", FRAMES)
    (tmp_path / "a.traj").write_bytes((tmp_path / "a.traj").read_bytes()[:300])
    with pytest.raises(DataError, match="it is damaged"):
        read(tmp_path / "a.traj")


def test_bad_structures_are_left_out_and_counted(tmp_path):
    frames = [a.copy() for a in FRAMES]
    for bare, atoms in zip(frames, FRAMES, strict=True):
        bare.calc = atoms.calc
    frames[1] = under(("energy", "forces", "stress"), FRAMES[1])
    frames[1].arrays["forces"][2, 1] = np.nan
    path = extxyz(tmp_path / "a.extxyz", frames)
    with pytest.raises(DataError, match="forces of atom 2 is not a finite number"):
        read(path)
    findings = Findings()
    kept = [s for _, s in read_structures(path, ReadOptions(skip_bad=True), findings=findings)]
    assert_same(kept, [FRAMES[0], FRAMES[2]])
    assert findings.left_out == 1
    assert "1 left out (skip_bad): " in findings.lines()[-1]
