"""Command lines to copy into a shell, whatever the names of files in them."""

from __future__ import annotations

import re
import shlex

from sciml.core.installation import start

PLAIN = re.compile(r"[\w./:@%+-]+", re.ASCII)
"""Values that need no quotes in the grammar of overrides."""


def command(verb: str, *arguments: str, **keys: object) -> str:
    """Returns the command line of a verb; a shell and Hydra read the values of its keys as they are.

    Args:
        arguments: words that are written as they are, such as ``structures=FILE``.
    """
    overrides = [f"{key}={quoted(str(value))}" for key, value in keys.items()]
    return " ".join([start(verb), *map(shlex.quote, overrides), *arguments])


def quoted(value: str) -> str:
    """Returns a value as an override has it: in quotes where Hydra or OmegaConf would read something else from it."""
    if PLAIN.fullmatch(value):
        return value
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped).replace("${", r"\${")
    return f"'{escaped}'"
