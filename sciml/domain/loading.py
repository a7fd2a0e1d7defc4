"""From the name in a configuration to a domain."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from sciml.core.errors import ConfigError
from sciml.domain.protocol import Domain

ADVICE = "see docs/add-a-domain.md"


def load_domain(values: Mapping[str, Any]) -> Domain:
    """Makes the domain that ``_target_`` names; what a file names is checked before by :mod:`sciml.domain.trust`.

    Raises:
        ConfigError: where there is no such class, or it lacks a part of the protocol.
    """
    target = str(values.get("_target_", ""))
    module, _, name = target.rpartition(".")
    try:
        named = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"no domain can be loaded from {target!r} ({error})", key="domain._target_") from error
    if not isinstance(named, type):
        raise ConfigError(f"{target} is no class", key="domain._target_", hint=ADVICE)
    _refuse_without(_METHODS, named, target)  # what is no domain is not called
    domain: Domain = named()
    _refuse_without(sorted(Domain.__annotations__), domain, target)
    return domain


def _refuse_without(parts: Sequence[str], domain: object, target: str) -> None:
    missing = [part for part in parts if not hasattr(domain, part)]
    if missing:
        raise ConfigError(f"{target} lacks {', '.join(missing)}", key="domain._target_", hint=ADVICE)


_METHODS = sorted(name for name, part in vars(Domain).items() if callable(part) and name[0] != "_")
