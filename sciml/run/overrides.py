"""Overrides as people type them: ``key=value`` in which text and paths mean what they say, whatever letters they have.

Hydra's grammar gives a meaning to commas, brackets, quotes and blanks, and refuses many other letters. Numbers, true,
false, null, lists, groups and interpolations are read as Hydra reads them; all other values are text, letter by letter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.core.command_line import quoted
from sciml.core.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

WRITE = "write key=value, e.g. trainer.max_steps=100"
_KEY = re.compile(r"(?P<mark>\+{0,2})(?P<key>[\w./@:-]+)", re.ASCII)
_INTERPOLATION = re.compile(r"\$\{[^{}]+\}")
_FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag|extend_list)\(.*\)", re.DOTALL)
_OPEN, _CLOSED = "[{(", "]})"


def as_override(argument: str) -> str:
    """Returns an argument in Hydra's grammar.

    Raises:
        ConfigError: where it is no ``key=value``, or several values are given for one key.
    """
    key, equals, value = argument.partition("=")
    if argument.startswith("~"):
        hint = f"{key[1:]}=null leaves out what can be left out" if key[1:] else WRITE
        raise ConfigError(f"{argument!r}: keys are not deleted", hint=hint)
    if not equals:
        raise ConfigError(f"{argument!r} is no override", hint=WRITE)
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{key!r} is no key", hint=WRITE)
    return f"{key}{equals}{_value(value, key.lstrip('+'))}"


def _value(text: str, key: str) -> str:
    """Returns a value as Hydra's grammar has it."""
    if text.startswith("~"):
        return quoted(os.path.expanduser(text))
    parsed = _parsed(text)
    if parsed is None:
        return _listed(text, key) or quoted(text)
    if parsed.is_sweep_override():
        if _FUNCTION.fullmatch(text) or not any(_is_text(part) for part in _split(text)):
            raise ConfigError(
                "must be one value, got several",
                key=key,
                hint="a list is written as [a,b], and train -m sweeps over several",
            )
        return quoted(text)
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if isinstance(parsed.value(), str) and text and not is_quoted and not _INTERPOLATION.search(text):
        return quoted(text)
    return text


def _listed(text: str, key: str) -> str | None:
    """Returns a list of values that Hydra cannot read, each written so that it can; None where it is no list."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    written = f"[{','.join(_value(part.strip(), key) for part in _split(text[1:-1]))}]"
    return None if _parsed(written) is None else written


def _parsed(text: str) -> Override | None:
    """Returns what Hydra makes of a value, or None where its grammar refuses it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"key={text}")
    except (HydraException, ValueError):
        return None


def _is_text(part: str) -> bool:
    """Says whether a value is neither a number, nor true, false or null."""
    parsed = _parsed(part.strip())
    return parsed is None or parsed.is_sweep_override() or isinstance(parsed.value(), str)


def parts_of(values: str) -> list[str]:
    """Returns the values that commas part, as they were typed; quotes and brackets keep one together."""
    if len(values) > 1 and values[0] == values[-1] and values[0] in "'\"":
        return [values]
    return [part.strip() for part in _split(values)]


def _split(text: str) -> list[str]:
    """Returns the parts between commas that stand in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in _OPEN) - (letter in _CLOSED)
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def arguments(keys: Mapping[str, Any]) -> list[str]:
    """Returns keys and values of Python, or of a YAML file, as a command line has them.

    Args:
        keys: groups by name, keys within groups as mappings or dotted.
    """
    found = []
    for name, value in keys.items():
        if isinstance(value, Mapping) and value and "." not in name:
            found += [f"{name}.{inner}={typed_value(part)}" for inner, part in value.items()]
        else:
            found.append(f"{name}={typed_value(value)}")
    return found


def read_arguments(file: Path) -> list[str]:
    """Returns the keys of a YAML file as a command line has them.

    Raises:
        ConfigError: it cannot be read, or is no mapping of keys.
    """
    from yaml import YAMLError, safe_load

    try:
        keys = safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise ConfigError(f"{file} cannot be read ({reason})", key="--config", hint="name a YAML file") from None
    if not isinstance(keys, Mapping) or not all(isinstance(name, str) for name in keys):
        raise ConfigError(f"{file} is no mapping of keys", key="--config", hint="e.g. a line domain: climate")
    if isinstance(keys.get("config"), Mapping):
        hint = f"resume={file.parent} goes on with it, init_from={file.parent} starts from its weights"
        raise ConfigError(f"{file} is the record of a run, not a file of keys", key="--config", hint=hint)
    return arguments(keys)


def typed_value(value: Any) -> str:
    """Returns a value of Python as a command line has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(typed_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{typed_value(part)}' for name, part in value.items())}}}"
    return quoted(str(value)) if isinstance(value, (str, Path)) else str(value)
