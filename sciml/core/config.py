"""From plain nested dicts to frozen dataclasses, with errors that name the key and a value that works."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from sciml.core.errors import ConfigError, nearest

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], *, prefix: str = "") -> T:
    """Makes a dataclass from a mapping, checking names and types all the way down.

    Args:
        cls: a dataclass; its fields may be dataclasses themselves.
        values: what the user composed.
        prefix: key under which the values stand, for messages.

    Raises:
        ConfigError: for an unknown key (the nearest known one is offered), a missing one, or a wrong type.
    """
    from pydantic import ValidationError

    _refuse_unknown(cls, values, prefix)
    try:
        return _adapter(cls).validate_python(dict(values))  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join([prefix, *(str(part) for part in first["loc"])] if prefix else map(str, first["loc"]))
        if first["type"] == "missing":
            raise ConfigError("a value is required", key=key) from None
        raise ConfigError(f"{first['msg']}, not {first['input']!r}", key=key) from None


@cache
def _adapter(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _refuse_unknown(cls: Any, values: Any, prefix: str) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"a group of keys is needed, not {values!r}", key=prefix or None)
    hints = get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls) if field.init}
    for name, value in values.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if name not in known:
            raise ConfigError("unknown key", key=key, hint=nearest(str(name), known))
        candidates: list[Any] = [hints[name], *get_args(hints[name])]
        nested = next((kind for kind in candidates if dataclasses.is_dataclass(kind)), None)
        if nested is None or value is None:
            continue
        if get_origin(hints[name]) in (dict, Mapping) and isinstance(value, Mapping):  # records by name
            for part, record in value.items():
                _refuse_unknown(nested, record, f"{key}.{part}")
        else:
            _refuse_unknown(nested, value, key)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted key."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, part in value.items():
        found |= flat(part, f"{prefix}.{name}" if prefix else str(name))
    return found


def choice(value: str, known: tuple[str, ...], key: str) -> str:
    """The value itself, if it is one of the known ones.

    Raises:
        ConfigError: with the nearest known value.
    """
    if value not in known:
        raise ConfigError(f"unknown value {value!r}", key=key, hint=nearest(value, known))
    return value


def positive(value: float, key: str, *, example: float = 1) -> None:
    """Refuses zero and negative numbers."""
    if not value > 0:
        raise ConfigError(f"{value} is not positive", key=key, hint=f"for example {key}={example}")
