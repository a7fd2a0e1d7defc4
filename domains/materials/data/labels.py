"""Describes what is learned: which label stands where in a file, in which unit, and whether it can be true.

Inside the suite energies are eV, lengths A, stresses eV/A^3 with ASE's sign: minus the pressure. VASP prints stresses
in kbar with the other sign and in the order xx, yy, zz, xy, yz, zx.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from domains.materials.data.key_names import typed
from domains.materials.data.structure import is_node_label, stress_matrix
from sciml.core.config import one_of
from sciml.core.errors import ConfigError, DataError

GRAPH, NODE = "graph", "node"
CONVENTIONS = ("ase", "vasp")
VASP_SIGN = "vasp's sign"
"""A convention that files have and nobody states: VASP's sign in ASE's order."""
VASP_ORDER = [0, 1, 2, 4, 5, 3]
"""Where ASE's yz, xz, xy stand among VASP's xx, yy, zz, xy, yz, zx."""
PER_ATOM = "/atom"
VIRIAL = "virial eV"

ANGSTROMS = {"A": 1.0, "Bohr": 0.529177210903, "nm": 10.0}
UNITS = {
    "energy": "eV",
    "forces": "eV/A",
    "stress": "eV/A^3",
    "magnetic_moments": "muB",
    "charges": "e",
    "mixing_enthalpy": "eV/atom",
}
"""Labels that the suite knows by name, and the unit it keeps them in."""
LEVELS = {
    "energy": GRAPH,
    "stress": GRAPH,
    "mixing_enthalpy": GRAPH,
    "forces": NODE,
    "magnetic_moments": NODE,
    "charges": NODE,
}
SHAPES: dict[str, tuple[int, ...]] = {
    "energy": (),
    "stress": (3, 3),
    "mixing_enthalpy": (),
    "forces": (3,),
    "magnetic_moments": (),
    "charges": (),
}
"""Shape of one value: a structure's for graph labels, an atom's for node labels."""


class Stated(NamedTuple):
    """Holds what a file, or the usage of its format, says of one of its entries.

    Attributes:
        unit: None where it is the suite's own.
        convention: of stress, as in :class:`LabelSpec`.
        label: the label that it is, where its name alone does not tell.
        assumed: whether usage says it, and not the file.
    """

    unit: str | None = None
    convention: str | None = None
    label: str | None = None
    assumed: bool = False


@dataclass(frozen=True)
class LabelSpec:
    """Says where a label comes from.

    Attributes:
        name: what the suite calls it.
        key: what the file calls it.
        unit: as in the file; None where it is the suite's own.
        convention: of stress: ``ase`` for ASE's sign and order, ``vasp`` for VASP's; None is VASP's for kilobars, which
            come from there, and else ASE's.
        assumed: whether nobody has stated the unit.
    """

    name: str
    key: str
    unit: str | None = None
    convention: str | None = None
    assumed: bool = False

    def as_stated(self, stated: Stated | None) -> LabelSpec:
        """Returns it with what the file says of the entry; what the user has said comes first."""
        if stated is None:
            return self
        same = self.unit in (None, stated.unit)
        convention = stated.convention if self.convention is None and same else self.convention
        if self.unit is not None:
            return replace(self, convention=convention)
        return replace(self, unit=stated.unit, convention=convention, assumed=stated.assumed)

    @property
    def _convention(self) -> str:
        return self.convention or ("vasp" if self.unit == "kbar" else "ase")

    def to_suite(self, value: np.ndarray, num_atoms: int, volume: float) -> np.ndarray:
        """Converts a value to the suite's unit, sign and shape."""
        if self.name == "stress":
            return self._stress(value, volume)
        factor = factors(self.name).get(self.unit or "", 1.0)
        if self.name == "energy" and self.unit is not None and self.unit.endswith(PER_ATOM):
            factor *= num_atoms
        return value * factor

    def _stress(self, value: np.ndarray, volume: float) -> np.ndarray:
        order = VASP_ORDER if self._convention == "vasp" else slice(None)
        matrix = stress_matrix(value[order]) if value.shape == (6,) else value.reshape(3, 3)
        if self.unit == VIRIAL:
            return -matrix / volume
        sign = 1.0 if self._convention == "ase" else -1.0
        return sign * matrix * factors("stress").get(self.unit or "", 1.0)

    def describe(self) -> str:
        """Describes source, unit and sign in words, for the log."""
        unit = self.unit or UNITS.get(self.name)
        assumed = " (assumed)" if self.assumed or (self.unit is None and self.name in UNITS) else ""
        text = f"{self.name} from {self.key!r} {f'in {unit}' if unit else 'as in the file'}{assumed}"
        if self.name == "stress":
            opposite = self._convention != "ase" or self.unit == VIRIAL
            text += f", {'the opposite of ' if opposite else ''}ASE's sign, kept as eV/A^3 with ASE's sign"
        elif self.unit not in (None, UNITS.get(self.name)):
            text += f", kept in {UNITS[self.name]}" if self.name in UNITS else ""
        return text


@cache
def factors(name: str) -> Mapping[str, float]:
    """Returns the units of a label that can be converted, each with its value in the suite's unit."""
    from ase.units import GPa, Hartree, Ry, kcal, kJ, mol

    energies = {"eV": 1.0, "meV": 1e-3, "Ha": Hartree, "Ry": Ry, "kJ/mol": kJ / mol, "kcal/mol": kcal / mol}
    per_atom = {f"{unit}{PER_ATOM}": value for unit, value in energies.items()}
    known: dict[str, dict[str, float]] = {
        "energy": energies | per_atom,
        "mixing_enthalpy": per_atom,
        "forces": {
            f"{unit}/{length}": value / size for length, size in ANGSTROMS.items() for unit, value in energies.items()
        },
        "stress": {"eV/A^3": 1.0, "GPa": GPa, "kbar": 0.1 * GPa, "bar": 1e-4 * GPa, "Pa": 1e-9 * GPa, VIRIAL: 1.0},
        "magnetic_moments": {"muB": 1.0},
        "charges": {"e": 1.0},
    }
    return known.get(name, {})


def parse_labels(labels: Mapping[str, Any] | None, key: str = "labels") -> tuple[dict[str, LabelSpec], set[str]]:
    """Reads labels as the user gives them: ``{energy: REF_energy, stress: {key: virial, unit: virial eV}, charges:
    null}``.

    Returns:
        what was named, and the names of labels that are not wanted (null).

    Raises:
        ConfigError: an unknown option, unit or convention.
    """
    specs, unwanted = {}, set()
    for name, given in (labels or {}).items():
        here = f"{key}.{name}"
        if not name.isidentifier():
            raise ConfigError(f"{name!r} is no name", key=key, hint="use letters, digits and underscores")
        if given is None:
            unwanted.add(name)
            continue
        options = {"key": given} if isinstance(given, str) else given
        if not isinstance(options, Mapping):
            raise ConfigError(f"{given!r} is no label", key=here, hint=f"write e.g. {here}=REF_{name}")
        for option in options:
            one_of(option, ("key", "unit", "convention"), here)
        unit = options.get("unit")
        if unit is not None and factors(name):
            one_of(unit, factors(name), f"{here}.unit")
        convention = options.get("convention")
        if convention is not None:
            one_of(convention, CONVENTIONS, f"{here}.convention")
        specs[name] = LabelSpec(name, str(options.get("key", name)), unit, convention)
    return specs, unwanted


def checked_label(spec: LabelSpec, value: Any, num_atoms: int, volume: float, where: str) -> np.ndarray:
    """Returns a label in the suite's unit and shape.

    Args:
        where: file and number of the structure, for messages.

    Raises:
        DataError: no numbers, a wrong shape, not a number or infinite, or stress where there is no volume.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: {spec.name} is no number but {value!r}; name its key with {typed(f'labels.{spec.name}')}=KEY"
        ) from None
    if spec.name == "stress":
        _check_stress(spec, array, volume, where)
    elif spec.name in SHAPES:
        array = _fit(spec.name, array, num_atoms, where)
    if not np.isfinite(array).all():
        raise DataError(
            f"{where}: {spec.name}{_first_bad(array, num_atoms)} is not a finite number; leave the structure out"
        )
    return spec.to_suite(array, num_atoms, volume)


def level_of(name: str, value: np.ndarray, num_atoms: int) -> str:
    """Returns ``graph`` or ``node``: whether a label belongs to a structure or to each atom."""
    return LEVELS.get(name) or (NODE if is_node_label(value, num_atoms) else GRAPH)


def check_energy(labels: Iterable[str], unwanted: set[str], available: Iterable[str], where: str) -> None:
    """Refuses forces without an energy: as a rule the energy is there and goes by another name.

    Raises:
        DataError: naming what else is there.
    """
    names = set(labels)
    if "forces" in names and "energy" not in names and "energy" not in unwanted:
        others = ", ".join(sorted(set(available) - names)) or "nothing else"
        raise DataError(
            f"{where}: forces without energy (beside them: {others}); name its key with {typed('labels.energy')}=KEY, "
            f"or train on forces alone with {typed('labels.energy')}=null"
        )


def _check_stress(spec: LabelSpec, array: np.ndarray, volume: float, where: str) -> None:
    if array.shape not in ((6,), (9,), (3, 3)):
        raise DataError(
            f"{where}: stress has {array.size} values of shape {array.shape}; it needs 6 (xx, yy, zz, yz, xz, "
            "xy), 9 or 3x3"
        )
    if not volume > 0:
        raise DataError(
            f"{where}: stress without a cell of three vectors; leave it out with {typed('labels.stress')}=null"
        )
    if array.shape != (6,) and np.isfinite(array).all():
        matrix = array.reshape(3, 3)
        if np.abs(matrix - matrix.T).max() > 1e-3 * max(np.abs(matrix).max(), 1e-3):
            raise DataError(f"{where}: stress is not symmetric; check that {spec.key!r} is a stress")


def _fit(name: str, array: np.ndarray, num_atoms: int, where: str) -> np.ndarray:
    wanted = SHAPES[name] if LEVELS[name] == GRAPH else (num_atoms, *SHAPES[name])
    if array.size == int(np.prod(wanted)) and array.ndim <= max(len(wanted), 1) + 1:
        return array.reshape(wanted)
    raise DataError(
        f"{where}: {name} has the shape {array.shape}, it needs {wanted}; name another key with "
        f"{typed(f'labels.{name}')}=KEY, or "
        f"leave it out with {typed(f'labels.{name}')}=null"
    )


def _first_bad(array: np.ndarray, num_atoms: int) -> str:
    if array.ndim and len(array) == num_atoms:
        return f" of atom {int(np.argwhere(~np.isfinite(array))[0][0])}"
    return ""
