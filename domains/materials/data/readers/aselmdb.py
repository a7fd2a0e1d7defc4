"""ASE's rows in LMDB (``.aselmdb``), as fairchem's data sets have them: compressed JSON under the numbers from 1."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from domains.materials.data.readers.database import atoms_of
from sciml.core.errors import DataError

if TYPE_CHECKING:
    from ase import Atoms


def read_aselmdb(file: str, start: int = 0) -> Iterator[Atoms]:
    """Yields the structures of a file, from number ``start`` on, in the order of their numbers.

    Raises:
        DataError: the package ``lmdb`` is not installed.
    """
    from ase.db.row import AtomsRow
    from ase.io.jsonio import decode

    try:
        import lmdb
    except ModuleNotFoundError:
        raise DataError(f"{file}: reading LMDB needs the package lmdb; pip install lmdb") from None
    with (
        lmdb.open(file, subdir=False, readonly=True, lock=False, readahead=False) as database,
        database.begin() as transaction,
    ):
        keys = sorted(int(key) for key, _ in transaction.cursor() if key.isdigit())
        deleted = transaction.get(b"deleted_ids")
        gone = set(decode(zlib.decompress(deleted).decode())) if deleted else set()
        for number in [key for key in keys if key not in gone][start:]:
            stored = transaction.get(str(number).encode())
            row = AtomsRow({"id": number, **decode(zlib.decompress(stored).decode())})
            yield atoms_of(row)
