"""Structures of files without their labels, as prediction and screening take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from domains.materials.data.findings import Findings
from domains.materials.data.readers.labeled_frames import check_atoms
from domains.materials.data.readers.source import FormatOptions, read_frames
from domains.materials.data.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms


def read_unlabeled(
    files: Sequence[str], options: FormatOptions, *, findings: Findings | None = None
) -> Iterator[tuple[Structure, Atoms]]:
    """Yields structures named ``file@number``, without the labels that they may have, beside ASE's atoms as read.

    Args:
        findings: takes down structures that cannot be, which are then left out, and so is the rest of a file behind
            what cannot be read; None: the first one ends the reading.

    Raises:
        ConfigError: a file needs an option that is not given, such as the elements of its types.
        DataError: a file that is empty or damaged, or a structure that cannot be.
    """
    skip, noted = findings is not None, findings or Findings()
    for file in files:
        with noted.leaving_out(skip):
            for count, atoms in enumerate(read_frames(file, options, 0)):
                name = f"{file}@{count}"
                with noted.leaving_out(skip):
                    check_atoms(atoms, name)
                    yield replace(Structure.from_atoms(atoms), name=name, labels={}), atoms
