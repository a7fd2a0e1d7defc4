"""Command lines to copy into a shell, whatever the names of files in them."""

from __future__ import annotations

import re
import shlex
from contextvars import ContextVar

from sciml.core.installation import start

PLAIN = re.compile(r"[\w./:@%+-]+", re.ASCII)
"""Values that need no quotes in the grammar of overrides."""

CONFIG_DIR: ContextVar[str | None] = ContextVar("config_dir", default=None)
"""Folder with groups of the user's own, which the running command was given and its next ones need, too."""


def command(verb: str, *arguments: str, **keys: object) -> str:
    """Returns the command line of a verb; a shell and Hydra read the values of its keys as they are.

    Args:
        arguments: words that are written as they are, such as ``structures=FILE``.
    """
    overrides = [f"{key}={quoted(str(value))}" for key, value in keys.items()]
    own = CONFIG_DIR.get()
    words = [*([f"--config-dir={own}"] if own else []), *overrides]
    return " ".join([start(verb), *map(shlex.quote, words), *arguments])


def quoted(value: str) -> str:
    """Returns a value as an override has it: in quotes where Hydra or OmegaConf would read something else from it."""
    if PLAIN.fullmatch(value):
        return value
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped).replace("${", r"\${")
    return f"'{escaped}'"
