"""Making a store of a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.app.run_on_data import make
from sciml.core.result import CommandResult
from sciml.domain.optional import Prepares


def run(values: Mapping[str, Any]) -> CommandResult:
    """Makes it and says where."""
    return make("prepare", Prepares, values)
