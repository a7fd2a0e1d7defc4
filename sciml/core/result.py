"""Holds the result of a command, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Output = Literal["text", "json"]
"""The output of a command: text for people, or one JSON document on stdout."""


@dataclass(frozen=True)
class CommandResult:
    """Holds a JSON document for ``output=json``, and the text that is printed otherwise."""

    document: Mapping[str, Any]
    text: str
