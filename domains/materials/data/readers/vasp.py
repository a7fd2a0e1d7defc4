"""Outputs of VASP as ASE reads them, with a mark on ionic steps whose electrons have not converged."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from domains.materials.data.readers.files import open_text
from domains.materials.data.readers.frames import UNCONVERGED

if TYPE_CHECKING:
    from ase import Atoms

ITERATION = re.compile(r"Iteration +(\d+)\( *(\d+)\)")
LIMIT = re.compile(r"\bNELM *= *(\d+)")
REACHED = "EDIFF is reached"


def read_vasp(file: str, kind: str) -> Iterator[Atoms]:
    """Yields the ionic steps of ``vasprun.xml`` or ``OUTCAR``.

    Args:
        kind: ASE's name of the format, ``vasp-xml`` or ``vasp-out``.
    """
    from ase.io import iread

    limits = _limits_of_xml(file) if kind == "vasp-xml" else _limits_of_outcar(file)
    for number, atoms in enumerate(iread(file, index=":", format=kind)):
        if number in limits:
            atoms.info[UNCONVERGED] = f"{limits[number]} steps (NELM)"
        yield atoms


def _limits_of_xml(file: str) -> dict[int, int]:
    """Returns NELM of each ionic step that took so many steps of its electrons."""
    limits: dict[int, int] = {}
    limit = steps = ionic = 0
    # what a run that was stopped has written is read as far as it goes
    with contextlib.suppress(ElementTree.ParseError), open_text(file) as opened:
        for _, node in ElementTree.iterparse(opened):
            if node.tag == "i" and node.get("name") == "NELM":
                limit = int(node.text or 0)
            elif node.tag == "scstep":
                steps += 1
            elif node.tag == "calculation":
                if 1 < limit <= steps:
                    limits[ionic] = limit
                steps, ionic = 0, ionic + 1
                node.clear()
    return limits


def _limits_of_outcar(file: str) -> dict[int, int]:
    """Returns NELM of each ionic step that took so many steps of its electrons and did not reach EDIFF."""
    limits: dict[int, int] = {}
    limit = ionic = 0
    with open_text(file) as opened:
        for line in opened:
            if not limit and (found := LIMIT.search(line)):
                limit = int(found[1])
            elif found := ITERATION.search(line):
                ionic = int(found[1]) - 1
                if 1 < limit <= int(found[2]):
                    limits[ionic] = limit
            elif REACHED in line:
                limits.pop(ionic, None)
    return limits
