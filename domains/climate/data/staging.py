"""Where a store grows until it is whole: a hidden folder with a ledger."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from domains.climate.data import zarr_layout as layout
from sciml.core.files import disk_errors, write_json

LEDGER = "ledger.json"


class Workplace:
    """The hidden folder in which a store grows, with the ledger of what is finished."""

    def __init__(self, folder: Path, ledger: dict[str, Any]) -> None:
        self.folder, self.ledger = folder, ledger
        self.store, self.scratch = folder / "store", folder / "scratch"

    @classmethod
    def open(cls, out: Path, mark: str) -> Workplace:
        """The folder as an interrupted run of the same work left it, or an empty one."""
        folder = out.with_name(f".{out.name}.partial")
        with contextlib.suppress(OSError, ValueError):
            ledger = json.loads((folder / LEDGER).read_text())
            if ledger.get("identity") == mark:
                return cls(folder, ledger)
        shutil.rmtree(folder, ignore_errors=True)
        with disk_errors(out):
            folder.mkdir(parents=True)
        return cls(folder, {"identity": mark, "blocks": 0})

    def note(self, **entries: Any) -> None:
        self.ledger.update(entries)
        write_json(self.folder / LEDGER, self.ledger)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def publish(self, out: Path, attributes: dict[str, Any]) -> None:
        """Puts the finished store in its place."""
        layout.open_group(self.store, "r+").attrs.update(attributes)
        layout.consolidate(self.store)
        old = out.with_name(f".{out.name}.old")
        if out.exists():
            out.rename(old)
        self.store.rename(out)
        shutil.rmtree(old, ignore_errors=True)
        self.remove()
