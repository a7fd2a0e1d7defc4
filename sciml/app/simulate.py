"""Making data of a domain's own simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.app.run_on_data import make
from sciml.core.result import CommandResult
from sciml.domain.optional import Simulates


def run(values: Mapping[str, Any]) -> CommandResult:
    """Makes it and says where."""
    return make("simulate", Simulates, values)
