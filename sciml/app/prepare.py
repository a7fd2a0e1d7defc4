"""Preparation of a source into a store for training."""

from __future__ import annotations

from sciml.app.run_on_data import run_on_data
from sciml.core.result import CommandResult
from sciml.domain.optional import Prepares
from sciml.run.compose import Composition


def run(composition: Composition) -> CommandResult:
    """Prepares the store and prints its path."""
    return run_on_data("prepare", Prepares, composition.config)
