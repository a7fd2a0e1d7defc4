"""Structures of any source, one after the other, checked at the door."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from domains.materials.data.findings import Findings
from domains.materials.data.key_names import typed
from domains.materials.data.labels import parse_labels
from domains.materials.data.readers.array_files import read_hdf5, read_npz
from domains.materials.data.readers.aselmdb import read_aselmdb
from domains.materials.data.readers.castep import read_castep
from domains.materials.data.readers.database import read_database
from domains.materials.data.readers.deepmd import read_deepmd
from domains.materials.data.readers.extxyz import read_extxyz
from domains.materials.data.readers.files import KNOWN, format_of, locate
from domains.materials.data.readers.json_records import read_json_structures
from domains.materials.data.readers.labeled_frames import LabeledFrames
from domains.materials.data.readers.lammps import DATA, DUMPS, read_lammps
from domains.materials.data.readers.lsms import read_lsms
from domains.materials.data.readers.mtp import read_mtp
from domains.materials.data.readers.vasp import read_vasp
from domains.materials.data.structure import Structure
from sciml.core.errors import ConfigError, DataError, SciMLError, nearest

if TYPE_CHECKING:
    from ase import Atoms

PICKLED = b"PickleTrajectory"
"""How trajectories of ASE before version 3.11 begin."""
OWN = ("mtp", "lsms", "json", "npz", "hdf5", "aselmdb", "deepmd")
"""Names of formats beside ASE's."""
PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth")


@dataclass(frozen=True)
class FormatOptions:
    """Says what files do not say of their structures.

    Attributes:
        format: ASE's name of the format, or ``mtp``, ``lsms``, ``json``, ``npz``, ``hdf5``, ``aselmdb``, ``deepmd``;
            null tells by name and content.
        species: elements of the types in ``.cfg`` of MLIP, dumps and data files of LAMMPS, and systems of DeepMD-kit,
            in the order of their numbers, where the file does not name them.
        cell: three lengths or vectors, A, for LSMS, whose files have none; ``[0,0,0]`` is a cluster.
        length_unit: of positions in LSMS: Bohr or A.
    """

    format: str | None = None
    species: list[str] | None = None
    cell: list[Any] | None = None
    length_unit: str = "Bohr"


@dataclass(frozen=True)
class ReadOptions(FormatOptions):
    """Says how files are read, and what is taken from them.

    Attributes:
        labels: which label stands where, e.g. ``{energy: REF_energy, stress: {key: S, unit: kbar}, charges: null}``;
            labels under their usual names are found without it, and null leaves one out.
        group_key: what a structure's group is called; null takes ``group`` or ``config_type``, or the file's name.
        skip_bad: whether structures that cannot be (atoms at one place, values that are no numbers, files cut off)
            are left out and counted; else the first one ends the preparation.
    """

    key_prefix: ClassVar[str] = ""

    labels: dict[str, Any] = field(default_factory=dict)
    group_key: str | None = None
    skip_bad: bool = False

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
    findings: Findings | None = None,
) -> Iterator[tuple[tuple[int, int], Structure]]:
    """Yields each structure with its place: number of the file and number in it.

    Structures are named as ASE's command line would: ``file@12`` is the thirteenth.

    Args:
        path: file, folder, pattern, or several of them.
        branch: number of the data set.
        start: place of the first structure that is wanted.
        complete: whether every label that is asked for by name must be in it, as in the only data set of a store.
        findings: takes down what was found and what was left out.

    Raises:
        DataError: files that are missing, empty, damaged, or say what cannot be; ``file@number`` is named.
        ConfigError: options that do not fit the files.
    """
    options = options or ReadOptions()
    findings = findings if findings is not None else Findings()
    reader = LabeledFrames(options.labels, options.group_key, findings)
    for number, file in enumerate(locate(path)):
        if number < start[0]:
            continue
        first = start[1] if number == start[0] else 0
        count = first
        with findings.leaving_out(options.skip_bad):
            for atoms in read_frames(file, options, first):
                with findings.leaving_out(options.skip_bad), _one_sentence(f"{file}@{count}"):
                    yield (number, count), reader.structure(atoms, file, count, branch)
                count += 1
    if complete and start == (0, 0):  # else what was read before may have had them
        reader.check_used(str(path))


def read_frames(file: str, options: FormatOptions, start: int) -> Iterator[Atoms]:
    """Yields a file's structures as ASE's atoms; whatever goes wrong in a library becomes one sentence.

    Raises:
        DataError: the file is empty, damaged, or without a structure in the format that it is read as.
    """
    if Path(file).stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    frames: Iterator[Atoms] = iter(())
    kind = _kind(file, options)
    for count in itertools.count(start):
        with _one_sentence(f"{file}@{count}"):
            frames = _opened(file, kind, options, start) if count == start else frames
            atoms = next(frames, None)
        if atoms is None and count == 0:
            raise DataError(
                f"{file}: no structure is found in it, read as {kind}; {typed('format')}=NAME reads it as another "
                "of ASE's formats, e.g. aims-output"
            )
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
        raise DataError(
            f"{where}: cannot be read, it is damaged, or not in the format that it seems to be ({reason})"
        ) from error


def _kind(file: str, options: FormatOptions) -> str:
    """Returns the name of a file's format, one of ours or ASE's.

    Raises:
        ConfigError: a name was given that is none.
        DataError: the format is not known, or is a pickle.
    """
    from ase.io.formats import ioformats

    kind = options.format or format_of(file)
    _refuse_pickles(file, kind)
    if options.format is not None and options.format not in (*OWN, *ioformats):
        hint = nearest(options.format, (*OWN, *ioformats))
        raise ConfigError(f"{options.format!r} is no name of a format", key=typed("format"), hint=hint)
    return _named_by_ase(file) if kind is None else kind


def _opened(file: str, kind: str, options: FormatOptions, start: int) -> Iterator[Atoms]:
    own: dict[str, Callable[[], Iterator[Atoms]]] = {
        "extxyz": lambda: read_extxyz(file, start),
        "mtp": lambda: read_mtp(file, options.species, start),
        "lsms": lambda: read_lsms(file, options.cell, options.length_unit, start),
        "json": lambda: read_json_structures(file, start),
        "npz": lambda: read_npz(file, start),
        "hdf5": lambda: read_hdf5(file, start),
        "aselmdb": lambda: read_aselmdb(file, start),
        "deepmd": lambda: read_deepmd(file, options.species, start),
        "cfg": lambda: itertools.islice(_atom_eye(file), start, None),
        "vasp-xml": lambda: itertools.islice(read_vasp(file, kind), start, None),
        "vasp-out": lambda: itertools.islice(read_vasp(file, kind), start, None),
        "castep-castep": lambda: itertools.islice(read_castep(file), start, None),
        "db": lambda: itertools.islice(read_database(file), start, None),
    }
    if kind in own:
        return own[kind]()
    if kind in (*DUMPS, DATA):
        return read_lammps(file, kind, options.species, start)
    return itertools.islice(_by_ase(file, kind), start, None)


def _refuse_pickles(file: str, kind: str | None) -> None:
    with Path(file).open("rb") as opened:
        start = opened.read(len(PICKLED))
    if kind == "trj" or start == PICKLED:
        raise DataError(
            f"{file} is an old trajectory of pickles, which may run any program; "
            "whoever trusts it can convert it with: python -m ase.io.trajectory FILE"
        )
    if Path(file).suffix in PICKLES:
        raise DataError(
            f"{file}: a pickle may run any program and is not read; write the structures as extxyz where they came from"
        )


def _named_by_ase(file: str) -> str:
    """Returns ASE's name of a file's format."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    kind = None
    with contextlib.suppress(UnknownFileTypeError):
        kind = filetype(file)
    if kind not in ioformats:  # an ending is taken for a format's name
        raise DataError(f"{file}: a format that is not known; known are {KNOWN}, and what ASE reads")
    return str(kind)


def _by_ase(file: str, kind: str) -> Iterator[Atoms]:
    from ase.io import iread

    return iter(iread(file, index=":", format=kind))


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
