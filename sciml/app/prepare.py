"""Making a store of a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.app.cli import Outcome
from sciml.app.making import make
from sciml.domain.optional import Prepares


def run(values: Mapping[str, Any]) -> Outcome:
    """Makes it and says where."""
    return make("prepare", Prepares, values)
