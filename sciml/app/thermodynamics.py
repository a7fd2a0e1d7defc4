"""Order and heat capacity against temperature by a trained model."""

from __future__ import annotations

from sciml.app.run_on_model import run_on_model
from sciml.core.result import CommandResult
from sciml.domain.optional import SamplesThermodynamics
from sciml.run.compose import Composition


def run(composition: Composition) -> CommandResult | None:
    """Samples, and prints averages by temperature."""
    return run_on_model("thermodynamics", SamplesThermodynamics, composition.config)
