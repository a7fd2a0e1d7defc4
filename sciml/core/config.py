"""Builds frozen dataclasses of plain nested dicts; an error names the key, what it must be, and a value that works.

What one key must be stands in its type (``Literal``, :mod:`sciml.core.types`); what several keys must be together is
checked in ``__post_init__`` with :func:`at_least`, :func:`one_of` and :func:`divides`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, TypeVar

from sciml.core.errors import ConfigError, close_match
from sciml.core.sentences import first_error, plain

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], *, prefix: str = "") -> T:
    """Makes a dataclass from a mapping, checking names, types and ranges all the way down.

    Args:
        cls: a dataclass; its fields may be dataclasses themselves.
        values: what the user composed.
        prefix: key under which the values stand, for messages.

    Raises:
        ConfigError: for an unknown key (the nearest known one is offered), a missing one, or a value that its type
            does not allow; NaN and infinity are no numbers here.
    """
    from pydantic import ValidationError

    if not isinstance(values, Mapping):
        raise ConfigError(f"must be a group of keys, got {plain(values)}", key=prefix or None)
    # arrays and tensors of Python's users are lists of numbers
    values = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}
    try:
        (built,) = _adapter(cls).validate_python((values,))  # type: ignore[arg-type]
    except ValidationError as error:
        raise first_error(cls, values, prefix, error) from None
    _refuse_flags(built, values, prefix)
    return built


@cache
def _adapter(cls: type) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # A number that is typed for text, such as a year for a name, is text.
    config = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)
    # A plain dataclass takes these settings from the type around it only, hence the tuple.
    return TypeAdapter(tuple[cls], config=config)  # type: ignore[valid-type]


def _refuse_flags(built: Any, values: Mapping[str, Any], prefix: str) -> None:
    """Refuses true and false where they would be taken as the numbers 1 and 0."""
    for name, value in values.items():
        key, result = f"{prefix}.{name}" if prefix else name, getattr(built, name)
        if isinstance(value, bool) and type(result) in (int, float):
            raise ConfigError(f"must be a number, got {plain(value)}", key=key)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(result):
            _refuse_flags(result, value, key)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested mappings by dotted key."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    flattened: dict[str, Any] = {}
    for name, part in value.items():
        flattened |= flat(part, f"{prefix}.{name}" if prefix else str(name))
    return flattened


def one_of(value: T, known: Collection[T], key: str) -> T:
    """Returns a value that is one of the known ones.

    Raises:
        ConfigError: with the nearest known value.
    """
    if value not in known:
        names = [plain(name) for name in known]
        raise ConfigError(
            f"must be one of {', '.join(names)}, got {plain(value, quoted=True)}",
            key=key,
            hint=close_match(str(value), names),
        )
    return value


def at_least(value: float, least: float, key: str, *, example: float | None = None) -> None:
    """Refuses a number below ``least``.

    Raises:
        ConfigError: with an example that works, ``least`` itself if none is given.
    """
    if not value >= least:
        works = least if example is None else example
        raise ConfigError(
            f"must be at least {plain(least)}, got {plain(value)}", key=key, hint=f"try {key}={plain(works)}"
        )


def divides(part: int, whole: int, *, key: str, of: str) -> None:
    """Refuses a number that does not divide another.

    Args:
        part: what must divide.
        whole: what must be divided, at least 1.
        key: key of ``part``.
        of: key of ``whole``, or what it is called.

    Raises:
        ConfigError: with numbers that do.
    """
    if part < 1 or whole % part:
        works = [str(n) for n in range(1, min(whole, 64) + 1) if whole % n == 0]
        raise ConfigError(f"must divide {of}, got {part} and {whole}", key=key, hint=f"try one of {', '.join(works)}")
