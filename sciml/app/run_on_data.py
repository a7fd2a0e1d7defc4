"""Runs the commands that produce data: they hand the domain its own keys and print the path of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sciml.core.command_line import command
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.result import CommandResult
from sciml.domain.loading import load_domain
from sciml.run.spec import GROUPS

FOR_TRAINING = (*GROUPS, "reference_models", "output")
"""Keys that a domain brings along for training; they are none of a command that produces data."""


def run_on_data(verb: str, protocol: type, config: Mapping[str, Any]) -> CommandResult:
    """Runs the domain's method ``verb``, which writes data, with the keys that its ``<verb>_config`` knows.

    Raises:
        ConfigError: where the domain does not follow the protocol of the verb.
    """
    domain = load_domain(config["domain"])
    if not isinstance(domain, protocol):
        raise ConfigError(f"{verb} is not for domain={domain.name}", key="domain", hint="see docs/add-a-domain.md")
    keys = {name: value for name, value in config.items() if name not in FOR_TRAINING}
    path = getattr(domain, verb)(build(getattr(domain, f"{verb}_config"), keys))
    keys = {"domain": domain.name, "data.path": path}
    text = f"made  {path}\nnext  {command('train', **keys)}"
    return CommandResult({"path": str(path)}, text)
