"""Knows where the files that come with the project are: beside the package in a checkout, inside it when installed.

A path in a configuration means a file of the working folder or, where there is none, one that comes with the project,
such as ``data/climate/era5_week.nc``. What a run keeps of it opens from any folder: see :func:`recorded`.
"""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
IS_CHECKOUT = (PACKAGE.parent / "conf" / "train.yaml").is_file()
ROOT = PACKAGE.parent if IS_CHECKOUT else PACKAGE / "project_files"
"""Has ``conf``, ``data`` and ``models``; pyproject.toml puts them there when a wheel is built."""
CONF = ROOT / "conf"
USER_CONF = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "sciml"
"""Has options of an installed package that were made here, since the package itself may be read-only."""
OWN_CONF = CONF if IS_CHECKOUT else USER_CONF
"""Where this machine's options are written, such as ``cluster=this_machine``."""


def located(path: str) -> str:
    """Returns a local path as an absolute one: of the working folder or, where there is none, of the project.

    An address such as ``gs://bucket/era5.zarr``, and the empty path, stay as they are.
    """
    if not path or "://" in path:
        return path
    path = os.path.expanduser(path)
    here = os.path.abspath(path)
    if os.path.isabs(path) or _exists(here):
        return here + "/" * path.endswith("/")
    return str(ROOT / path) if _exists(str(ROOT / path)) else here


def as_typed_or_of_project(path: str) -> str:
    """Returns a path as it was typed or, where only the project has it, that of the project."""
    found = located(path)
    return found if is_of_the_project(found) and found != os.path.abspath(path) else path


def recorded(path: str) -> str:
    """Returns a path as a run keeps it: relative for a file that comes with the project, absolute for all others."""
    found = located(path)
    return os.path.relpath(found, ROOT) if is_of_the_project(found) else found


def is_of_the_project(path: str | Path) -> bool:
    """Says whether an absolute path is that of data or of a model that come with the project."""
    return str(path).startswith(tuple(f"{ROOT}{os.sep}{folder}{os.sep}" for folder in ("data", "models")))


def start(verb: str) -> str:
    """Returns how a command is started here, as it was itself: ``python scripts/train.py`` or ``sciml train``."""
    called = Path(sys.argv[0]).absolute()
    if called.name == "__main__.py" and called.parent == PACKAGE:
        return f"python -m sciml {verb}"
    return f"python scripts/{verb}.py" if IS_CHECKOUT and called.name != "sciml" else f"sciml {verb}"


def install(extra: str) -> str:
    """Returns the command that adds an extra here."""
    return f"pip install -e '.[{extra}]'" if IS_CHECKOUT else f"pip install 'sciml[{extra}]'"


def training() -> list[str]:
    """Returns what Python, or torchrun, is given to run a training, followed by its keys."""
    return [os.path.relpath(ROOT / "scripts" / "train.py")] if IS_CHECKOUT else ["-m", "sciml", "train"]


def _exists(path: str) -> bool:
    return os.path.lexists(path) or (glob.has_magic(path) and next(glob.iglob(path, recursive=True), None) is not None)
