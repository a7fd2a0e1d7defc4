"""What a trained model says of the cases in a user's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.app.run_on_model import use
from sciml.core.result import CommandResult
from sciml.domain.optional import Predicts


def run(values: Mapping[str, Any]) -> CommandResult:
    """Predicts, writes and says where."""
    return use("predict", Predicts, values)
