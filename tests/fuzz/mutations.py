"""Ways to spoil bytes, documents, files and folders, all drawn from a generator."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**9, 10**30, 0.5, -0.5, 1e308, math.nan, math.inf, "", "x", "1", "null", [], {},
    [[]], [None], {"": None}, "../../etc/passwd", "/dev/zero", "$(touch ran)", "${oc.env:HOME}", "a\nb", "\0", "ä" * 50,
    "x" * 5000, [1, 2], ["a"], {"a": {"b": 1}},
)  # fmt: skip


def _flip(content: bytearray, place: int, draw: random.Random) -> None:
    if content:
        content[min(place, len(content) - 1)] ^= 1 << draw.randrange(8)


def _flip_many(content: bytearray, place: int, draw: random.Random) -> None:
    for _ in range(20 if content else 0):
        content[int(len(content) * draw.random() ** 2)] = draw.randrange(256)


def _other_digits(content: bytearray, place: int, draw: random.Random) -> None:
    digits = [n for n, byte in enumerate(content[:5000]) if chr(byte).isdigit()]
    for n in draw.sample(digits, min(3, len(digits))):
        content[n] = ord(draw.choice("0123456789-."))


def _cut(content: bytearray, place: int, draw: random.Random) -> None:
    del content[place:]


def _drop(content: bytearray, place: int, draw: random.Random) -> None:
    del content[place : place + draw.randrange(1, 200)]


def _repeat(content: bytearray, place: int, draw: random.Random) -> None:
    content[place:place] = content[place : place + draw.randrange(1, 2000)]


def _noise(content: bytearray, place: int, draw: random.Random) -> None:
    content[place : place + 64] = draw.randbytes(64)


def _zeros(content: bytearray, place: int, draw: random.Random) -> None:
    content[place : place + 500] = bytes(500)


def _empty(content: bytearray, place: int, draw: random.Random) -> None:
    content.clear()


SPOILERS = (_flip, _flip_many, _other_digits, _cut, _drop, _repeat, _noise, _zeros, _empty)


def spoiled_bytes(content: bytes, draw: random.Random) -> bytes:
    """Returns bytes with some of them changed, left out, repeated or added; where headers are, rather than behind."""
    changed = bytearray(content)
    draw.choice(SPOILERS)(changed, int(len(content) * draw.random() ** 3), draw)
    return bytes(changed)


def spoiled_document(document: Any, draw: random.Random) -> Any:
    """Returns a JSON document in which one part is another, is gone, or stands twice."""
    document = json.loads(json.dumps(document))
    places: list[tuple[Any, Any]] = []

    def look(part: Any) -> None:
        for key, value in list(part.items() if isinstance(part, dict) else enumerate(part)):
            places.append((part, key))
            if isinstance(value, (dict, list)):
                look(value)

    if isinstance(document, (dict, list)):
        look(document)
    if not places or draw.random() < 0.05:
        return draw.choice(VALUES)
    part, key = draw.choice(places)
    kind = draw.random()
    if kind < 0.2:
        del part[key]
    elif kind < 0.3:
        part[key] = [part[key]]
    elif kind < 0.4 and isinstance(part[key], int) and not isinstance(part[key], bool):
        part[key] *= draw.choice([-1, 10, 10**6, 0.5])
    else:
        part[key] = draw.choice(VALUES)
    return document


def spoil_json(file: Path, draw: random.Random) -> None:
    """Spoils a file of one JSON document, or of one a line."""
    text = file.read_text()
    if draw.random() < 0.25:
        file.write_bytes(spoiled_bytes(text.encode(), draw))
    elif file.suffix == ".jsonl":
        lines = text.splitlines()
        place = draw.randrange(len(lines))
        lines[place] = json.dumps(spoiled_document(json.loads(lines[place]), draw))
        file.write_text("\n".join(lines) + "\n")
    else:
        file.write_text(json.dumps(spoiled_document(json.loads(text), draw)))


def spoil_bytes(file: Path, draw: random.Random) -> None:
    """Spoils the bytes of a file."""
    file.write_bytes(spoiled_bytes(file.read_bytes(), draw))


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


REPLACEMENTS: tuple[Callable[[Path], None], ...] = (Path.unlink, _to_folder, _to_link, _to_pipe)


def spoil_place(file: Path, draw: random.Random) -> None:
    """Puts nothing, a folder, a link to an endless device, or a pipe that nobody fills in the place of a file."""
    draw.choice(REPLACEMENTS)(file)


def spoil_any(folder: Path, draw: random.Random) -> str:
    """Spoils one file in a folder in some way; returns its name."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".png", ".html", ".gif")
    )
    file = draw.choice(files)
    looks_like_json = file.suffix in (".json", ".jsonl") or file.name.startswith(".z")
    if draw.random() < 0.1:
        spoil_place(file, draw)
    else:
        (spoil_json if looks_like_json else spoil_bytes)(file, draw)
    return str(file.relative_to(folder))


def copied(source: Path, folder: Path) -> Path:
    """Copies a file or folder into another folder."""
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy(source, target)
    return target
