"""Simulation of data by a domain's own simulator."""

from __future__ import annotations

from sciml.app.run_on_data import run_on_data
from sciml.core.result import CommandResult
from sciml.domain.optional import Simulates
from sciml.run.compose import Composition


def run(composition: Composition) -> CommandResult:
    """Simulates and prints the path of the data."""
    return run_on_data("simulate", Simulates, composition.config)
