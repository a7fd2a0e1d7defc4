"""Lists the options of the configuration's groups. Reads names of files only, imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from sciml.core.installation import CONF, OWN_CONF


def options(group: str, config_dir: str | None = None) -> list[str]:
    """Returns the options of a group, e.g. ``["vit_1b", "vit_tiny"]`` of ``model``."""
    folders = [CONF / group, OWN_CONF / group, *([Path(config_dir) / group] if config_dir else [])]
    return sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.yaml")})
