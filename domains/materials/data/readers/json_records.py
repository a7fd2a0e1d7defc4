"""JSON as pymatgen, CHGNet, MatPES, MatGL, JARVIS, FitSNAP and ASE write it.

A record is any object that holds a structure under ``structure`` or ``atoms``, wherever it stands; its labels stand
beside, or one level below (``outputs``, ``data``). Lists of structures with lists of labels are records side by side.

Units are those of the field: energies eV, forces eV/A. Stress is in kilobars with VASP's sign where it comes from VASP:
3x3 in MPtrj, six numbers in MatPES (xx, yy, zz, yz, xz, xy) and, as ``virial_stress`` in VASP's order, in SNAP's sets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from domains.materials.data.labels import VASP_SIGN, Stated
from domains.materials.data.readers.database import read_database
from domains.materials.data.readers.files import open_text
from domains.materials.data.readers.fitsnap import fitsnap_frames, is_fitsnap
from domains.materials.data.readers.frames import add_entry, check_sites, make_atoms, state_units, symmetric
from sciml.core.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms

HOLDERS = ("structure", "atoms", "final_structure", "initial_structure")
COLUMNS = ("structures", "structure", "atoms")
BELOW = ("outputs", "data", "output", "targets", "target", "labels", "properties")
ENERGIES = (
    "uncorrected_total_energy", "energy", "e_0_energy", "e_wo_entrp", "e_fr_energy", "total_energy",
)  # fmt: skip
"""Names of a total energy, in order of preference; of VASP's three the one extrapolated to zero smearing."""
STRESSES = {
    "stress": Stated("kbar", VASP_SIGN, assumed=True),
    "stresses": Stated("kbar", VASP_SIGN, assumed=True),
    "virial_stress": Stated("kbar", "vasp", "stress", assumed=True),
}
"""Says what stresses of records are taken for."""


def read_json_structures(file: str, start: int = 0) -> Iterator[Atoms]:
    """Yields the structures of a file, from number ``start`` on.

    Raises:
        DataError: no structure is found in it.
    """
    document = _load(file)
    frames = _frames(document, file)
    number = -1
    for number, atoms in enumerate(frames):
        if number >= start:
            yield atoms
    if number < 0:
        raise DataError(
            f"{file}: no structure is found in this JSON; known are records with a pymatgen structure (SNAP, MPtrj, "
            "MatPES, lists of CHGNet), JARVIS atoms, FitSNAP and ASE databases"
        )


def _load(file: str) -> Any:
    """Returns what is in a file: JSON, JSON after a line of comment, or an object a line."""
    with open_text(file) as opened:
        content = opened.read()
    if content.lstrip().startswith("#"):
        content = content.lstrip().partition("\n")[2]
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        lines = [line for line in content.splitlines() if line.strip()]
        if len(lines) < 2 or error.msg != "Extra data":
            raise
        return [json.loads(line) for line in lines]


def _frames(document: Any, file: str) -> Iterator[Atoms]:
    if isinstance(document, Mapping) and "ids" in document and "nextid" in document:
        yield from read_database(file, "json")
        return
    if is_fitsnap(document):
        yield from fitsnap_frames(document)
        return
    for number, record in enumerate(_records(document, {})):
        yield _atoms(*record, f"{file}@{number}")


def _records(node: Any, above: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yields every structure with what stands beside it."""
    if isinstance(node, Mapping):
        if _is_structure(node):
            yield node, above
            return
        column = next((name for name in COLUMNS if _is_column(node.get(name))), None)
        if column is not None:
            yield from _side_by_side(node, column)
            return
        holder = next((name for name in HOLDERS if isinstance(node.get(name), Mapping)), None)
        if holder is not None and _is_structure(node[holder]) and "ionic_steps" not in node:
            yield node[holder], {name: value for name, value in node.items() if name != holder}
            return
        for value in node.values():
            yield from _records(value, {})
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for value in node:
            if isinstance(value, Mapping | list):
                yield from _records(value, {})


def _side_by_side(node: Mapping[str, Any], column: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yields the rows of lists that are as long as that of the structures."""
    structures = node[column]
    below = [node[name] for name in BELOW if isinstance(node.get(name), Mapping)]
    lists = {
        name: values
        for name, values in (item for holder in (*below, node) for item in holder.items())
        if name != column and isinstance(values, list) and len(values) == len(structures)
    }
    for number, structure in enumerate(structures):
        yield structure, {name: values[number] for name, values in lists.items()}


def _is_column(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping) and _is_structure(value[0])


def _is_structure(node: Mapping[str, Any]) -> bool:
    return "sites" in node or {"lattice_mat", "coords", "elements"} <= set(node)


def _atoms(structure: Mapping[str, Any], beside: Mapping[str, Any], where: str) -> Atoms:
    beside = dict(beside)
    for name in BELOW:
        if isinstance(beside.get(name), Mapping):
            beside = {**beside.pop(name), **beside}
    atoms = _pymatgen(structure, where) if "sites" in structure else _jarvis(structure)
    results = _labels(beside, len(atoms))
    of_sites = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    made = make_atoms(atoms.numbers, atoms.positions, atoms.cell.array, pbc=atoms.pbc, results=results)
    for name, value in beside.items():
        if name in STRESSES and isinstance(value, list):
            add_entry(made, name, symmetric(value))
        elif name != "energy" or "energy" not in results:
            add_entry(made, name, value)
    made.arrays = {**of_sites, **made.arrays}
    state_units(made, STRESSES)
    if group := beside.get("group") or beside.get("mp_id") or beside.get("matpes_id"):
        made.info.setdefault("group", str(group))
    return made


def _labels(beside: Mapping[str, Any], num_atoms: int) -> dict[str, Any]:
    """Returns the energy and moments of a record, which have names that only VASP's records have, under ASE's."""
    results: dict[str, Any] = {}
    energy = next((beside[name] for name in ENERGIES if isinstance(beside.get(name), int | float)), None)
    if energy is not None:
        results["energy"] = float(energy)
    for name in ("magmom", "magmoms"):
        value = beside.get(name)
        if isinstance(value, list) and len(value) == num_atoms and all(isinstance(one, int | float) for one in value):
            results["magmoms"] = np.asarray(value, dtype=np.float64)
    return results


def _pymatgen(structure: Mapping[str, Any], where: str) -> Atoms:
    """Reads a structure or molecule as pymatgen's ``as_dict`` gives it.

    Raises:
        DataError: a site with several elements.
    """
    symbols, sites = [], structure["sites"]
    for number, site in enumerate(sites):
        kinds = site.get("species") or [{"element": site.get("name") or site.get("label"), "occu": 1}]
        check_sites({number: {str(one["element"]): float(one.get("occu", 1)) for one in kinds}}, where)
        symbols.append("".join(letter for letter in str(kinds[0]["element"]) if letter.isalpha()))
    lattice = structure.get("lattice") or {}
    cell = lattice.get("matrix")
    if all("xyz" in site for site in sites):
        atoms = make_atoms(symbols, [site["xyz"] for site in sites], cell, pbc=lattice.get("pbc"))
    else:
        places = [site["abc"] for site in sites]
        atoms = make_atoms(symbols, places, cell, pbc=lattice.get("pbc"), fractional=True)
    properties = [site.get("properties") or {} for site in sites]
    for name in set().union(*properties):
        values = [one.get(name) for one in properties]
        if all(isinstance(value, int | float | list) for value in values):
            add_entry(atoms, name, values)
    return atoms


def _jarvis(structure: Mapping[str, Any]) -> Atoms:
    return make_atoms(
        structure["elements"],
        structure["coords"],
        structure["lattice_mat"],
        fractional=not structure.get("cartesian", False),
    )
