"""Reads what configuration dataclasses say of their keys from their source, so that help need not import torch.

A class is named by its module and its name. Names in the module that were imported are followed to where they are
defined. Only what stands literally in the source is understood; the rest is left out of the help.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_ATTRIBUTE = re.compile(r"    (\w+(?:, \w+)*): (.*)")
_MARKUP = re.compile(r":\w+:(?=`)|`")
_ALLOWED = {
    "AtLeastOne": "int >= 1",
    "Fraction": "0 to 1",
    "FractionBelowOne": "0 to below 1",
    "str": "text",
    "DeviceName": "auto | cpu | cuda | xpu | mps",
    "PositiveFraction": "above 0 to 1",
    "OpenFraction": "between 0 and 1",
}
_RANGES = {"Positive": "> 0", "NonNegative": ">= 0"}


@dataclass(frozen=True)
class Name:
    """Names a class, or a value, in a module."""

    module: str
    name: str


@dataclass(frozen=True)
class KeyFacts:
    """Says what the source tells of one key.

    Attributes:
        kind: its type in words, e.g. ``int >= 1 or null``.
        default: as it stands in the source; empty where it must be given.
        meaning: from the class's docstring, one line; empty where it says nothing.
        group: the dataclass of the keys within it; None for a plain value.
    """

    kind: str
    default: str = ""
    meaning: str = ""
    group: Name | None = None


def class_attribute(owner: Name, attribute: str) -> ast.expr | None:
    """Returns the expression that a class gives an attribute, e.g. ``data_config`` of a domain."""
    found = _class(owner)
    for statement in found[1].body if found else ():
        if isinstance(statement, ast.Assign) and any(_is_name(target, attribute) for target in statement.targets):
            return statement.value
        if isinstance(statement, ast.AnnAssign) and _is_name(statement.target, attribute):
            return statement.value
    return None


def class_named(owner: Name, attribute: str) -> Name | None:
    """Returns the class that an attribute of another class is."""
    value = class_attribute(owner, attribute)
    return _resolve(Name(owner.module, value.id)) if isinstance(value, ast.Name) else None


def classes_by_key(owner: Name, attribute: str) -> dict[str, Name]:
    """Returns the classes in a mapping that is an attribute of a class; other mappings in it are followed."""
    value = class_attribute(owner, attribute)
    return _mapping(owner.module, value) if value is not None else {}


def keys_of(owner: Name) -> dict[str, KeyFacts]:
    """Returns the keys of a dataclass and its bases by name, in their order; none where the class is not found."""
    found = _class(owner)
    if found is None:
        return {}
    module, node = found
    keys: dict[str, KeyFacts] = {}
    for base in node.bases:
        if isinstance(base, ast.Name):
            keys |= keys_of(Name(module, base.id))
    meanings = _meanings(ast.get_docstring(node) or "")
    for statement in node.body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if "ClassVar" in ast.unparse(statement.annotation):
            continue
        name = statement.target.id
        kind, group = _kind(module, statement.annotation)
        default = "" if statement.value is None else _default(module, statement.value)
        keys[name] = KeyFacts(kind, default, meanings.get(name, ""), group)
    return {name: _with_meaning(facts, meanings.get(name, "")) for name, facts in keys.items()}


def _with_meaning(facts: KeyFacts, meaning: str) -> KeyFacts:
    return KeyFacts(facts.kind, facts.default, facts.meaning or meaning, facts.group)


def _meanings(docstring: str) -> dict[str, str]:
    """Returns what the section ``Attributes:`` says of each name."""
    _, _, section = docstring.partition("Attributes:\n")
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if match := _ATTRIBUTE.fullmatch(line):
            names = match[1].split(", ")
            meanings |= dict.fromkeys(names, match[2])
        elif line.startswith("        ") and names:
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
        elif line.strip():
            break
    return {name: re.sub(r"\bNone\b", "null", _MARKUP.sub("", meaning)) for name, meaning in meanings.items()}


def _kind(module: str, annotation: ast.expr) -> tuple[str, Name | None]:
    """Returns a type in words, and the dataclass that it is."""
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        parts = [_kind(module, side) for side in (annotation.left, annotation.right)]
        words = dict.fromkeys(word for word, _ in parts)
        return " or ".join(words), next((group for _, group in parts if group), None)
    if isinstance(annotation, ast.Constant):
        return ("null" if annotation.value is None else str(annotation.value)), None
    if isinstance(annotation, ast.Subscript):
        return _generic(module, annotation)
    if isinstance(annotation, ast.Name):
        return _named(module, annotation.id)
    return ast.unparse(annotation), None


def _named(module: str, name: str) -> tuple[str, Name | None]:
    if name in _ALLOWED:
        return _ALLOWED[name], None
    if name == "FilePath":
        return "path", None
    found = _definition(Name(module, name))
    if found is None:
        return name, None
    where, node = found
    if isinstance(node, ast.ClassDef):
        return "group of keys", Name(where, node.name)
    kind = _kind(where, node)
    return kind if kind[0] != ast.unparse(node) else (name, None)


def _generic(module: str, annotation: ast.Subscript) -> tuple[str, Name | None]:
    outer = ast.unparse(annotation.value)
    parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    if outer == "Literal":
        return " | ".join(str(part.value) for part in parts if isinstance(part, ast.Constant)), None
    words = [_kind(module, part)[0] for part in parts if ast.unparse(part) != "..."]
    if outer in _RANGES:
        return f"{words[0]} {_RANGES[outer]}", None
    if outer in ("list", "tuple", "Sequence"):
        return f"list of {words[0]}", None
    if outer in ("dict", "Mapping"):
        inner = "" if words[-1] == "Any" or words[-1].startswith("mapping") else f" of {words[-1]}"
        return f"mapping{inner}", None
    if outer == "Annotated":
        return words[0], None
    return ast.unparse(annotation), None


def _default(module: str, value: ast.expr) -> str:
    """Returns a default as it would be typed; empty where it is computed."""
    if isinstance(value, ast.Call):
        return ""
    if isinstance(value, ast.Name):
        found = _definition(Name(module, value.id))
        return _default(found[0], found[1]) if found and isinstance(found[1], ast.expr) else ""
    text = ast.unparse(value)
    return {"None": "null", "True": "true", "False": "false"}.get(text, text.strip("'\""))


def _mapping(module: str, value: ast.expr) -> dict[str, Name]:
    if isinstance(value, ast.Name):
        found = _definition(Name(module, value.id))
        return _mapping(found[0], found[1]) if found and isinstance(found[1], ast.expr) else {}
    mapping: dict[str, Name] = {}
    if isinstance(value, ast.Dict):
        for key, part in zip(value.keys, value.values, strict=True):
            if key is None:
                mapping |= _mapping(module, part)
            elif isinstance(key, ast.Constant) and isinstance(part, ast.Name):
                mapping[str(key.value)] = _resolve(Name(module, part.id))
    return mapping


def _resolve(name: Name) -> Name:
    """Returns where a class is defined."""
    found = _class(name)
    return Name(found[0], found[1].name) if found else name


def _class(name: Name) -> tuple[str, ast.ClassDef] | None:
    """Returns the module that defines a class, and the class."""
    found = _definition(name)
    return (found[0], found[1]) if found is not None and isinstance(found[1], ast.ClassDef) else None


@cache
def _definition(name: Name) -> tuple[str, ast.ClassDef | ast.expr] | None:
    """Returns the module that defines a name, and its class or its value."""
    for statement in _statements(name.module):
        if isinstance(statement, ast.ClassDef) and statement.name == name.name:
            return name.module, statement
        if isinstance(statement, ast.ImportFrom) and statement.module:
            for alias in statement.names:
                if (alias.asname or alias.name) == name.name:
                    return _definition(Name(statement.module, alias.name))
        if isinstance(statement, ast.Assign) and any(_is_name(target, name.name) for target in statement.targets):
            return name.module, statement.value
        if isinstance(statement, ast.AnnAssign) and statement.value and _is_name(statement.target, name.name):
            return name.module, statement.value
    return None


@cache
def _statements(module: str) -> tuple[ast.stmt, ...]:
    """Returns the statements of a module; none where it has no source, or is of the standard library."""
    try:
        spec = None if module.partition(".")[0] in sys.stdlib_module_names else find_spec(module)
    except (ImportError, ValueError):
        return ()
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ()
    return tuple(_flattened(ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body))


def _flattened(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):  # imports for types
            yield from _flattened(statement.body)


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
