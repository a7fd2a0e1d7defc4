"""Searching a space of candidates with a trained model."""

from __future__ import annotations

from sciml.app.run_on_model import run_on_model
from sciml.core.result import CommandResult
from sciml.domain.optional import Screens
from sciml.run.compose import Composition


def run(composition: Composition) -> CommandResult | None:
    """Searches, and writes and prints the ranking."""
    return run_on_model("screen", Screens, composition.config)
