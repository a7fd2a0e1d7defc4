"""Turns what pydantic says of a wrong value into one sentence, for configurations with a value that works."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from sciml.core.errors import ConfigError, close_match, nearest

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]

_NEEDED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a group of keys",
    "dataclass": "a group of keys",
    "none": "null",
}
_BOUNDS = {
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
}


def first_error(cls: type, values: Mapping[str, Any], prefix: str, error: ValidationError) -> ConfigError:
    """Returns the error that helps most: an unknown key, else the first value that is wrong.

    Args:
        cls: the dataclass that could not be built.
        values: what it was to be built of.
        prefix: key under which the values stand.
    """
    details = error.errors(include_url=False)
    paths = [_path(values, detail) for detail in details]
    unknown = [i for i, detail in enumerate(details) if detail["type"] == "unexpected_keyword_argument"]
    if unknown:
        path = paths[unknown[0]]
        key = _innermost(cls, path)
        known = [field.name for field in dataclasses.fields(key.owner) if field.init]
        return ConfigError(
            "unknown key", key=_dotted(prefix, path), hint=nearest(key.name, known, _dotted(prefix, path[:-1]))
        )
    # the members of a union complain one by one; the one that fits furthest is meant
    rivals = [i for i, path in enumerate(paths) if path[:1] == paths[0][:1]]
    path = paths[max(rivals, key=lambda i: len(paths[i]))]
    here = [details[i] for i in rivals if paths[i] == path]
    if here[0]["type"] == "missing":
        return ConfigError("must be given", key=_dotted(prefix, path))
    key = _innermost(cls, path)
    needed = " or ".join(dict.fromkeys(_needed(key, path, detail) for detail in here))
    got = _short(plain(here[0]["input"], quoted=True))
    return ConfigError(
        f"must be {needed}, got {got}", key=_dotted(prefix, path), hint=_hint(key, path, here[0], prefix)
    )


def misfit(error: ValidationError) -> str:
    """Returns what the first wrong part of a document is and must be: "config must be a group of keys, got 3"."""
    detail = error.errors(include_url=False)[0]
    part = ".".join(map(str, detail["loc"][1:])) or "it"
    if detail["type"] == "missing":
        return f"{part} is missing"
    needed = _NEEDED.get(detail["type"].split("_")[0], detail["msg"].removeprefix("Input should be "))
    return f"{part} must be {needed}, got {_short(plain(detail['input'], quoted=True))}"


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def plain(value: Any, *, quoted: bool = False) -> str:
    """Writes a value as users type it: ``null``, ``true``, ``[1,2]``; text in quotes where asked."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str):
        return repr(value) if quoted else value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {plain(part)}" for name, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(plain, value))}]"
    return str(value)


def _path(values: Any, detail: ErrorDetails) -> Path:
    """Returns the keys and positions that lead to the wrong value, without pydantic's names for members of a union."""
    path: list[str | int] = []
    current = values
    for part in detail["loc"][1:]:  # the first counts in the tuple around the dataclass
        inside = dict(enumerate(current)) if isinstance(current, (list, tuple)) else current
        if isinstance(inside, Mapping) and part in inside:
            current = inside[part]
            path.append(part)
    if detail["loc"][-1] == "[key]":  # it is the name that is wrong, and not what stands under it
        return tuple(path[:-1])
    return (*path, detail["loc"][-1]) if detail["type"] == "missing" else tuple(path)


def _dotted(prefix: str, path: Path) -> str:
    return ".".join(map(str, [prefix, *path] if prefix else path))


@dataclasses.dataclass(frozen=True)
class _Key:
    """Names the innermost key on a path.

    Attributes:
        owner: the dataclass that it is a field of.
        name: its name there.
        depth: how many parts of the path lead to it.
        hint: type of the value at the end of the path; None where that is not told.
    """

    owner: Any
    name: str
    depth: int
    hint: Any

    @property
    def example(self) -> Any:
        """Returns its default, which is a value that works; None where it has none."""
        field = next(field for field in dataclasses.fields(self.owner) if field.name == self.name)
        if field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
        return None if field.default is dataclasses.MISSING else field.default


def _innermost(cls: Any, path: Path) -> _Key:
    owner, name, depth = cls, str(path[0]), 1
    hint: Any = cls
    for position, part in enumerate(path):
        hint = _container(hint)
        if dataclasses.is_dataclass(hint):
            owner, name, depth = hint, str(part), position + 1
            hint = get_type_hints(hint, include_extras=True).get(str(part))
        elif get_origin(hint) is not None:
            hint = get_args(hint)[-1 if isinstance(part, str) else 0]
    return _Key(owner, name, depth, hint)


def _container(hint: Any) -> Any:
    """Returns the member of an optional or annotated type that has parts: a dataclass, a list or a mapping."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        members = [_container(member) for member in get_args(hint)]
        return next((m for m in members if dataclasses.is_dataclass(m) or get_origin(m) is not None), None)
    return hint


def _needed(key: _Key, path: Path, detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context)
    if kind in ("literal_error", "enum"):
        return f"one of {', '.join(_choices(key.hint))}"
    if kind == "too_short":
        return f"at least {context['min_length']} long"
    if kind == "too_long":
        return f"at most {context['max_length']} long"
    if kind == "string_type":
        default = key.example
        example = default[0] if len(path) > key.depth and isinstance(default, (list, tuple)) and default else default
        return f"text such as {example}" if isinstance(example, str) and example else "text"
    return _NEEDED.get(kind.split("_")[0], detail["msg"].removeprefix("Input should be "))


def _choices(hint: Any) -> list[str]:
    """Returns the values of a Literal or an Enum, wherever they stand in a type."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return [plain(member.value) for member in hint]
    if get_origin(hint) is Literal:
        return [plain(value) for value in get_args(hint)]
    return [choice for part in get_args(hint) for choice in _choices(part)]


def _hint(key: _Key, path: Path, detail: ErrorDetails, prefix: str) -> str | None:
    if detail["type"] in ("literal_error", "enum"):
        return close_match(str(detail["input"]), _choices(key.hint))
    if detail["type"] in ("list_type", "tuple_type") and isinstance(detail["input"], (str, int, float)):
        return f"try {_dotted(prefix, path[: key.depth])}=[{plain(detail['input'])}]"
    if detail["type"] not in (*_BOUNDS, "too_short", "too_long"):
        return None
    example = key.example
    if example is None or isinstance(example, Mapping) or dataclasses.is_dataclass(example):
        return None
    return f"try {_dotted(prefix, path[: key.depth])}={plain(example)}"
