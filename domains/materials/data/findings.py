"""Takes down what was found in files: which entry became which label, what was not used, and what was left out."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from domains.materials.data.key_names import typed
from domains.materials.data.labels import LabelSpec
from sciml.core.errors import DataError

SHOWN = 5
"""Sentences about structures that were left out which are kept."""
MOST_NAMES = 12
"""Names of unused entries that are told; a file may have thousands."""


@dataclass
class Findings:
    """Counts what the structures of a data set carry.

    Attributes:
        labels: for each label, how many structures have it from each source, in words.
        unused: structures that carry each entry that became no label.
        left_out: how many structures (or rests of files) were left out.
        reasons: of the first of these.
    """

    labels: dict[str, Counter[str]] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, specs: Mapping[str, LabelSpec], others: set[str]) -> None:
        """Takes account of a structure.

        Args:
            specs: where its labels come from.
            others: names of what else it carries.
        """
        for name, spec in specs.items():
            self.labels.setdefault(name, Counter())[spec.describe()] += 1
        self.unused.update(others)

    def leave_out(self, error: DataError) -> None:
        """Takes account of a structure that cannot be."""
        self.left_out += 1
        if len(self.reasons) < SHOWN:
            self.reasons.append(str(error))

    @contextlib.contextmanager
    def leaving_out(self, allowed: bool) -> Iterator[None]:
        """Leaves out what turns out bad, where that is allowed.

        Raises:
            DataError: where it is not.
        """
        try:
            yield
        except DataError as error:
            if not allowed:
                raise
            self.leave_out(error)

    def sources(self, name: str) -> str:
        """Describes where a label comes from; of several sources, with counts."""
        found = self.labels.get(name, Counter())
        if len(found) <= 1:
            return "".join(found)
        return "; ".join(f"{text} ({count} structures)" for text, count in found.most_common())

    def lines(self) -> list[str]:
        """Returns what a user must know, in sentences: what is not used and what was left out."""
        lines = []
        if self.unused:
            names = [f"{name} ({count})" for name, count in self.unused.most_common(MOST_NAMES)]
            more = len(self.unused) - len(names)
            rest = f" and {more} more" if more else ""
            lines.append(f"found and not used: {', '.join(names)}{rest}; {typed('labels.NAME')}=KEY makes one a label")
        if self.left_out:
            lines.append(f"{self.left_out} left out (skip_bad): {'; '.join(self.reasons)}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON has it."""
        labels = {name: dict(found) for name, found in self.labels.items()}
        return {"labels": labels, "unused": dict(self.unused), "left_out": self.left_out, "reasons": self.reasons}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Findings:
        """Returns what :meth:`to_dict` gave."""
        labels = {name: Counter(found) for name, found in values.get("labels", {}).items()}
        reasons = list(values.get("reasons", ()))
        return cls(labels, Counter(values.get("unused", {})), int(values.get("left_out", 0)), reasons)
