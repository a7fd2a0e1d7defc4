"""Making a store of a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.app.cli import Outcome
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.domain.loading import load_domain
from sciml.domain.protocol import Prepares

NOT_ITS_OWN = ("domain", "data", "task", "model", "trainer", "optim", "changes", "output")


def run(values: Mapping[str, Any]) -> Outcome:
    """Makes them and says where."""
    domain = load_domain(values["domain"])
    if not isinstance(domain, Prepares):
        raise ConfigError(f"domain={domain.name} has nothing to prepare", key="domain", hint="see docs/add-a-domain.md")
    keys = {name: value for name, value in values.items() if name not in NOT_ITS_OWN}
    path = domain.prepare(build(domain.prepare_config, keys))
    text = f"made  {path}\nnext  python scripts/train.py domain={domain.name} data.path={path}"
    return Outcome({"path": str(path)}, text)
