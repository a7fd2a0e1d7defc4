"""Searching a space of candidates with a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.app.run_on_model import use
from sciml.core.result import CommandResult
from sciml.domain.optional import Screens


def run(values: Mapping[str, Any]) -> CommandResult:
    """Searches, writes and says what was found."""
    return use("screen", Screens, values)
