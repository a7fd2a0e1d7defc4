"""Prediction of the cases in a user's file by a trained model."""

from __future__ import annotations

from sciml.app.run_on_model import run_on_model
from sciml.core.result import CommandResult
from sciml.domain.optional import Predicts
from sciml.run.compose import Composition


def run(composition: Composition) -> CommandResult | None:
    """Predicts, and prints where the predictions are."""
    return run_on_model("predict", Predicts, composition.config, shared=True)
