"""Lists the options of the configuration's groups. Reads names of files only, imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from sciml.core.installation import CONF, OWN_CONF


def options(group: str, config_dir: str | None = None) -> list[str]:
    """Returns the options of a group, e.g. ``["vit_1b", "vit_tiny"]`` of ``model``."""
    folders = _folders(group, config_dir)
    return sorted({path.stem for folder in folders if folder.is_dir() for path in folder.glob("*.yaml")})


def option_file(group: str, option: str, config_dir: str | None = None) -> Path | None:
    """Returns the file of an option; None where there is none."""
    files = [folder / f"{option}.yaml" for folder in _folders(group, config_dir)]
    return next((file for file in files if file.is_file()), None)


def _folders(group: str, config_dir: str | None) -> list[Path]:
    return [CONF / group, *([Path(config_dir) / group] if config_dir else []), OWN_CONF / group]
