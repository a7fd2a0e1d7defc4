"""The folder of work that goes on when its command is given again: one process works in it, on one configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from sciml.core.config import flat
from sciml.core.errors import ConfigError
from sciml.core.files import make_folder, read_json, write_json
from sciml.core.lock import exclusive
from sciml.core.provenance import provenance

SETTINGS = "settings.json"


class _Settings(TypedDict):
    config: dict[str, Any]


@contextmanager
def alone(folder: Path, key: str) -> Iterator[None]:
    """Holds a study's folder; two at once would do the same work, or measure one another.

    Args:
        key: of the configuration, that names the folder.

    Raises:
        ConfigError: where another process holds it.
    """
    make_folder(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder, wait=False))
        except BlockingIOError:
            raise ConfigError(
                f"another process works on the study in {folder}", key=key, hint="wait for it, or name another"
            ) from None
        try:
            yield
        finally:
            with suppress(OSError):  # which goes where nothing came of it
                folder.rmdir()


def is_begun(folder: Path, key: str) -> bool:
    """Says whether a study was begun in a folder.

    Raises:
        ConfigError: where it holds something else.
    """
    if (folder / SETTINGS).exists():
        return True
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is there and holds no study", key=key, hint="name another folder")
    return False


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes what decides the results of a study that begins; the settings can be written as JSON."""
    write_json(folder / SETTINGS, {"config": _plain(settings), "provenance": provenance()})


def check_settings(folder: Path, settings: Mapping[str, Any], key: str) -> None:
    """Sees that a study goes on with the configuration that it began with.

    Raises:
        ConfigError: naming the first key that differs.
    """
    kept: _Settings = read_json(folder / SETTINGS, _Settings, advice=f"name another folder with {key}=")
    there, here = flat(kept["config"]), flat(_plain(settings))
    different = next((name for name in sorted({*there, *here}) if there.get(name) != here.get(name)), None)
    if different is not None:
        raise ConfigError(
            f"the study in {folder} has {different}={there.get(different)}, not {here.get(different)}",
            key=key,
            hint="name another folder, or leave it out",
        )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain
