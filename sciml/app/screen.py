"""Searching a space of candidates with a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.app.cli import Outcome
from sciml.app.using import use
from sciml.domain.optional import Screens


def run(values: Mapping[str, Any]) -> Outcome:
    """Searches, writes and says what was found."""
    return use("screen", Screens, values)
