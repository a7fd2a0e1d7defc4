"""Extended XYZ, frame by frame.

ASE reads each frame, and is handed one at a time: asked for all of them, it looks for their places first and then goes
back, which takes the square of the time where a compressed file must be decompressed anew for each step back.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from domains.materials.data.readers.files import open_text
from sciml.core.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms


def read_extxyz(file: str, start: int = 0) -> Iterator[Atoms]:
    """Yields the structures of a file, from number ``start`` on.

    Raises:
        DataError: a file that is cut off, or a frame that does not begin with its number of atoms.
    """
    from ase.io.extxyz import read_xyz

    with open_text(file) as text:
        for number in itertools.count():
            head = text.readline()
            if not head.strip():
                if text.readline().strip():
                    raise DataError(f"{file}@{number}: an empty line stands where a number of atoms should")
                return
            try:
                num_atoms = int(head)
            except ValueError:
                raise DataError(
                    f"{file}@{number}: {head.strip()[:40]!r} stands where a number of atoms should"
                ) from None
            lines = list(itertools.islice(text, num_atoms + 1))
            if len(lines) < num_atoms + 1:
                raise DataError(f"{file}@{number}: the file ends in the middle of this structure")
            if number >= start:
                yield next(read_xyz(io.StringIO(head + "".join(lines)), 0))
