"""Records the origin of a result: code, versions, machine, command."""

from __future__ import annotations

import datetime
import getpass
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from sciml.core.installation import IS_CHECKOUT, PACKAGE, ROOT

PACKAGES = ("torch", "deepspeed", "torch-geometric", "hydra-core", "xarray", "zarr", "netCDF4", "numpy")


def provenance() -> dict[str, Any]:
    """Returns a record of the code, the versions, the machine and the command, ready for JSON."""
    return {
        "time": now().isoformat(timespec="milliseconds"),
        "command": " ".join([_program(), *map(shlex.quote, sys.argv[1:])]),
        "git": _git(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("sciml", *PACKAGES)},
        "machine": machine(),
        "user": _user(),
    }


def now() -> datetime.datetime:
    """Returns the current time in UTC."""
    return datetime.datetime.now(datetime.UTC)


def version(package: str) -> str | None:
    """Returns the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Returns host, processor, cores, memory and accelerators."""
    import psutil

    from sciml.core.devices import accelerator_names

    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "accelerators": accelerator_names(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _program() -> str:
    """Returns what was started, as one would type it."""
    called = Path(sys.argv[0]).absolute()
    return "python -m sciml" if called == PACKAGE / "__main__.py" else called.name


def _git() -> dict[str, Any] | None:
    if not IS_CHECKOUT:  # an installed package may lie within somebody else's repository
        return None

    def run(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": run("rev-parse", "HEAD"), "dirty": bool(run("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
