"""Which domains a file may name.

Files such as ``run.json`` may come from strangers, and a name in them must not run their code: only domains of this
project are imported, and those that the user's own configuration declares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sciml.core.errors import DataError

EXAMPLE = "domains.climate.domain.ClimateDomain"
OURS = re.compile(r"domains(\.[A-Za-z]\w*)+")
_declared: set[str] = set()


def declare_domain(values: Any) -> None:
    """Takes a group ``domain`` of the user's own configuration: from then on files may name its class, too."""
    if isinstance(values, Mapping) and "_target_" in values:
        _declared.add(str(values["_target_"]))


def check_declared(values: Any, file: object) -> None:
    """Refuses a domain that a file names, unless it is one of this project or the user's own.

    Args:
        values: the group ``domain`` in the file.

    Raises:
        DataError: before anything is imported.
    """
    target = values.get("_target_") if isinstance(values, Mapping) else None
    if not isinstance(target, str):
        raise DataError(f"{file} is corrupted: config.domain._target_ must be text such as {EXAMPLE}")
    if target not in _declared and not OURS.fullmatch(target):
        raise DataError(
            f"{file} names the domain {target!r}, which is none of this project and is not imported; "
            "if it is your own, add --config-dir with the folder that has your domain/*.yaml"
        )
