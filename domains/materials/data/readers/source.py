"""Structures of any source, one after the other, checked at the door."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from domains.materials.data.labels import LEVELS, LabelSpec, check_energy, checked_label, parse_labels
from domains.materials.data.readers.extxyz import read_extxyz
from domains.materials.data.readers.files import format_of, locate
from domains.materials.data.readers.lsms import read_lsms
from domains.materials.data.readers.mtp import read_mtp
from domains.materials.data.structure import ASE_RESULTS, Structure
from sciml.core.errors import ConfigError, DataError, SciMLError

if TYPE_CHECKING:
    from ase import Atoms

MAX_NUMBER = 118
PICKLED = b"PickleTrajectory"
"""How trajectories of ASE before version 3.11 begin."""
GROUP_KEYS = ("group", "config_type")


@dataclass(frozen=True)
class ReadOptions:
    """Says how files are read.

    Attributes:
        labels: which label stands where, e.g. ``{energy: REF_energy, stress: {key: S, unit: kbar}, charges: null}``;
            labels under their usual names are found without it, and null leaves one out.
        format: ASE's name of the format, or ``mtp``, ``lsms``; null tells by name and content.
        group_key: what a structure's group is called; null takes ``group`` or ``config_type``, or the file's name.
        species: elements of the types 0, 1, ... in ``.cfg`` of MLIP.
        cell: three lengths or vectors, A, for LSMS, whose files have none.
        length_unit: of positions in LSMS: Bohr or A.
    """

    key_prefix: ClassVar[str] = ""

    labels: dict[str, Any] = field(default_factory=dict)
    format: str | None = None
    group_key: str | None = None
    species: list[str] | None = None
    cell: list[Any] | None = None
    length_unit: str = "Bohr"

    def __post_init__(self) -> None:
        parse_labels(self.labels, self.key("labels"))

    def key(self, name: str) -> str:
        """Returns a key as the user types it, for messages."""
        return f"{self.key_prefix}{name}"


def read_structures(
    path: str | Sequence[str],
    options: ReadOptions | None = None,
    *,
    branch: int = 0,
    start: tuple[int, int] = (0, 0),
    complete: bool = True,
) -> Iterator[tuple[tuple[int, int], Structure]]:
    """Yields each structure with its place: number of the file and number in it.

    Structures are named as ASE's command line would: ``file@12`` is the thirteenth.

    Args:
        path: file, folder, pattern, or several of them.
        branch: number of the data set.
        start: place of the first structure that is wanted.
        complete: whether every label that is asked for by name must be in it, as in the only data set of a store.

    Raises:
        DataError: files that are missing, empty, damaged, or say what cannot be; ``file@number`` is named.
        ConfigError: options that do not fit the files.
    """
    options = options or ReadOptions()
    reader = _Labels(options)
    for number, file in enumerate(locate(path)):
        if number < start[0]:
            continue
        first = start[1] if number == start[0] else 0
        count = first
        for atoms in read_frames(file, options, first):
            with _one_sentence(f"{file}@{count}"):
                structure = reader.structure(atoms, file, count, branch)
            yield (number, count), structure
            count += 1
        if count == 0:
            raise DataError(f"{file}: the file is empty, no structure is in it")
    if complete and start == (0, 0):  # else what was read before may have had them
        reader.check_used(str(path))


def read_frames(file: str, options: ReadOptions, start: int) -> Iterator[Atoms]:
    """Yields a file's structures as ASE's atoms; whatever goes wrong in a library becomes one sentence."""
    if Path(file).stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    frames: Iterator[Atoms] = iter(())
    for count in itertools.count(start):
        with _one_sentence(f"{file}@{count}"):
            frames = _opened(file, options, start) if count == start else frames
            atoms = next(frames, None)
        if atoms is None:
            return
        yield atoms


@contextlib.contextmanager
def _one_sentence(where: str) -> Iterator[None]:
    """Says in one sentence whatever a library finds wrong, and each has errors of its own.

    Raises:
        DataError: naming the file and number.
    """
    try:
        yield
    except SciMLError:
        raise
    except KeyError as error:
        name = error.args[0] if error.args else "?"
        raise DataError(f"{where}: unknown element or entry {name!r}; elements are H to Og") from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where}: cannot be read, it is damaged or of an unknown format ({reason})") from error


def _opened(file: str, options: ReadOptions, start: int) -> Iterator[Atoms]:
    kind = options.format or format_of(file)
    if kind == "extxyz":
        return read_extxyz(file, start)
    if kind == "mtp":
        return read_mtp(file, options.species, start)
    if kind == "lsms":
        return read_lsms(file, options.cell, options.length_unit, start)
    if kind == "cfg":
        return itertools.islice(_atom_eye(file), start, None)
    if kind == "db":
        return itertools.islice(_database(file), start, None)
    return itertools.islice(_by_ase(file, kind), start, None)


def _by_ase(file: str, kind: str | None) -> Iterator[Atoms]:
    from ase.io import iread

    with Path(file).open("rb") as opened:
        if kind == "trj" or opened.read(len(PICKLED)) == PICKLED:
            raise DataError(
                f"{file} is an old trajectory of pickles, which may run any program; "
                "whoever trusts it can convert it with: python -m ase.io.trajectory FILE"
            )
    return iter(iread(file, index=":", format=kind))


def _database(file: str) -> Iterator[Atoms]:
    from ase.db import connect

    for row in connect(file).select():
        atoms = row.toatoms()
        atoms.info.update(row.key_value_pairs)
        yield atoms


def _atom_eye(file: str) -> Iterator[Atoms]:
    """Reads AtomEye's CFG, with forces in its columns fx, fy, fz and numbers of the structure in a ``.bulk``
    beside it.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io.cfg import read_cfg

    atoms = read_cfg(file)
    if all(f"f{axis}" in atoms.arrays for axis in "xyz"):
        forces = np.stack([atoms.arrays[f"f{axis}"] for axis in "xyz"], axis=1)
        atoms.calc = SinglePointCalculator(atoms, forces=forces)
    beside = Path(file).with_suffix(".bulk")
    if beside.exists():
        values = np.array(beside.read_text().splitlines()[0].split(), dtype=float)
        atoms.info["bulk"] = values if len(values) > 1 else float(values[0])
    yield atoms


class _Labels:
    """Turns ASE's atoms into a checked structure with the labels that are wanted."""

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self.named, self.unwanted = parse_labels(options.labels)
        self.usual = {name: LabelSpec(name, name) for name in LEVELS if name not in self.named}
        self.unseen = set(self.named)
        self.others: set[str] = set()

    def structure(self, atoms: Atoms, file: str, number: int, branch: int) -> Structure:
        where = f"{file}@{number}"
        check_atoms(atoms, where)
        bare = Structure.from_atoms(atoms)
        there = _entries(atoms)
        labels = {}
        for spec in (*self.named.values(), *self.usual.values()):
            if spec.name in self.unwanted or spec.key not in there:
                continue
            value = there[spec.key]
            if spec.name == "energy" and np.shape(value) == (len(atoms),) and len(atoms) > 1:
                value = np.sum(value)  # energies of atoms, as LAMMPS writes them, add up to that of the structure
            labels[spec.name] = checked_label(spec, value, len(atoms), bare.volume, where)
            self.unseen.discard(spec.name)
        self.others |= set(there)
        check_energy(labels, self.unwanted, there, where)
        return Structure(
            bare.atomic_numbers, bare.positions, bare.cell, bare.pbc, labels, where, self._group(atoms, file), branch
        )

    def _group(self, atoms: Atoms, file: str) -> str:
        keys = GROUP_KEYS if self.options.group_key is None else (self.options.group_key,)
        for key in keys:
            if key in atoms.info:
                return str(atoms.info[key])
        path = Path(file)
        # VASP's files are all called alike: the folder tells what they are
        return path.parent.name if format_of(file) in ("vasp-xml", "vasp-out") else path.name.split(".")[0]

    def check_used(self, path: str) -> None:
        """Refuses a label that was asked for by name and is nowhere."""
        for name in sorted(self.unseen):
            known = ", ".join(sorted(self.others)) or "nothing"
            raise ConfigError(
                f"no structure of {path} has {self.named[name].key!r}", key=f"labels.{name}", hint=f"there are: {known}"
            )


def _entries(atoms: Atoms) -> Mapping[str, Any]:
    """Returns everything that the atoms carry beside their positions, under ASE's names and the suite's."""
    results = dict(getattr(atoms.calc, "results", None) or {})
    for ours, theirs in ASE_RESULTS.items():
        if theirs in results:
            results[ours] = results[theirs]
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    return {**arrays, **atoms.info, **{k: v for k, v in results.items() if v is not None}}


def check_atoms(atoms: Atoms, where: str) -> None:
    """Refuses atoms that cannot be: none, of no element, at no place, or repeating without a cell.

    Args:
        where: the file and number that are named.

    Raises:
        DataError: says what is wrong.
    """
    if len(atoms) == 0:
        raise DataError(f"{where}: the structure has no atom")
    numbers = atoms.numbers
    if numbers.min() < 1 or numbers.max() > MAX_NUMBER:
        bad = int(np.argmax((numbers < 1) | (numbers > MAX_NUMBER)))
        raise DataError(f"{where}: unknown element of atom {bad} (atomic number {numbers[bad]}); elements are H to Og")
    if not np.isfinite(atoms.positions).all():
        bad = int(np.argwhere(~np.isfinite(atoms.positions))[0][0])
        raise DataError(f"{where}: the position of atom {bad} is not a finite number")
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        raise DataError(f"{where}: the cell is not made of finite numbers")
    lacking = atoms.pbc & ~cell.any(1)
    flat = atoms.pbc.all() and abs(np.linalg.det(cell)) < 1e-6
    if lacking.any() or flat:
        what = "has no cell" if not cell.any() else "has a cell without volume"
        raise DataError(
            f'{where}: pbc says that the structure repeats, but it {what}; give a Lattice or set pbc="F F F"'
        )
