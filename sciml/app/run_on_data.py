"""What the commands that make data share: the domain's own keys in, the path of what was made out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.result import CommandResult
from sciml.domain.loading import load_domain

# A domain brings these along for training; they are not keys of a command that makes data.
FOR_TRAINING = ("domain", "data", "task", "model", "trainer", "optim", "companions", "changes", "output")


def make(verb: str, protocol: type, values: Mapping[str, Any]) -> CommandResult:
    """Lets the domain's method ``verb`` make data, with the keys that its ``<verb>_config`` knows.

    Raises:
        ConfigError: where the domain does not follow the protocol of the verb.
    """
    domain = load_domain(values["domain"])
    if not isinstance(domain, protocol):
        raise ConfigError(f"domain={domain.name} has nothing to {verb}", key="domain", hint="see docs/add-a-domain.md")
    keys = {name: value for name, value in values.items() if name not in FOR_TRAINING}
    path = getattr(domain, verb)(build(getattr(domain, f"{verb}_config"), keys))
    text = f"made  {path}\nnext  python scripts/train.py domain={domain.name} data.path={path}"
    return CommandResult({"path": str(path)}, text)
