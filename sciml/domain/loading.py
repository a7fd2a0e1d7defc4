"""From the name in a configuration to a domain."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from sciml.core.errors import ConfigError
from sciml.domain.protocol import Domain


def load_domain(values: Mapping[str, Any]) -> Domain:
    """Makes the domain that ``_target_`` names.

    Raises:
        ConfigError: where there is no such class, or it lacks a part of the protocol.
    """
    target = str(values.get("_target_", ""))
    module, _, name = target.rpartition(".")
    try:
        domain = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"no domain can be loaded from {target!r} ({error})", key="domain._target_") from error
    missing = [part for part in _PARTS if not hasattr(domain, part)]
    if missing:
        raise ConfigError(
            f"{target} lacks {', '.join(missing)}", key="domain._target_", hint="see docs/add-a-domain.md"
        )
    return domain


_PARTS = sorted(
    {*Domain.__annotations__, *(name for name, part in vars(Domain).items() if callable(part) and name[0] != "_")}
)
