"""Refuses zarr stores whose arrays could run code, or ask for what nobody knows, before any of them is opened.

An array of objects is decoded by a codec that its metadata name, and some codecs, such as ``pickle``, run what lies in
the chunks. Only numbers, times and text are opened, through the codecs of the format's own specifications.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sciml.core.errors import DataError
from sciml.data.files import is_remote

CODECS = re.compile(
    "bytes|blosc|zlib|gzip|bz2|lzma|lz4|zstd|crc32c?|adler32|fletcher32|delta|fixedscaleoffset|quantize|bitround|"
    "shuffle|packbits|astype|transpose|sharding_indexed|vlen-utf8|vlen-bytes"
)
TEXT_CODECS = frozenset({"vlen-utf8", "vlen-bytes"})
"""Codecs of format 2 that make no objects but text."""
NUMBERS_2 = re.compile(r"[<>|=]?([biufcSU]\d+|[mM]8(\[\w+\])?)")
TYPES_3 = re.compile(
    r"bool|u?int(8|16|32|64)|b?float(16|32|64)|complex(64|128)|r\d+|string|bytes|variable_length_(utf8|bytes)|"
    r"fixed_length_(utf32|bytes)|null_terminated_bytes|raw_bytes|numpy\.(datetime|timedelta)64"
)
DOCUMENTS = (".zarray", "zarr.json")
CONSOLIDATED = ".zmetadata"
MOST_BYTES = 2**26
"""Limits one document; the consolidated metadata of the largest archives take a few MiB."""


def check_codecs(path: str) -> None:
    """Reads the metadata of all arrays of a store, local or remote, and refuses those that are no plain data.

    Args:
        path: a folder or an address; what is no store is passed over.

    Raises:
        DataError: naming the array and its codec or type.
    """
    import fsspec

    if not is_remote(path):
        _refuse_devices(path)
    files, root = fsspec.core.url_to_fs(path)
    for name, document in _arrays(files, root.rstrip("/"), "", whole=not is_remote(path)):
        where = f"{path}: the array {name or '/'}"
        if not isinstance(document, Mapping):
            raise DataError(f"{where} has metadata that are no group of keys; the store is damaged")
        (_check_3 if document.get("zarr_format") == 3 else _check_2)(document, where)


def _refuse_devices(folder: str) -> None:
    """Refuses pipes and devices among a store's files, which might never end; looks at the entries of folders alone."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _refuse_devices(entry.path)
            elif not entry.is_file() and not entry.is_dir():
                raise DataError(f"{entry.path} is no plain file; the store is damaged")


def _arrays(files: Any, folder: str, name: str, *, whole: bool) -> Iterator[tuple[str, Any]]:
    """Yields the metadata of a folder's arrays, and of those in its groups, by name.

    Args:
        whole: whether to look behind consolidated metadata, which remote stores are opened by.
    """
    consolidated = _document(files, f"{folder}/{CONSOLIDATED}")
    for key, document in _members(consolidated, "metadata"):
        if key.rsplit("/", 1)[-1] == ".zarray":
            yield f"{name}{key.removesuffix('.zarray').rstrip('/')}", document
    for kind in DOCUMENTS:
        document = _document(files, f"{folder}/{kind}")
        if document is None:
            continue
        if kind == ".zarray" or not isinstance(document, Mapping) or document.get("node_type") != "group":
            yield name.rstrip("/"), document
            return
        for key, member in _members(document.get("consolidated_metadata"), "metadata"):
            consolidated = document
            if not isinstance(member, Mapping) or member.get("node_type") != "group":
                yield f"{name}{key}", member
    if consolidated is None or whole:
        for entry in _folders(files, folder):
            yield from _arrays(files, entry, f"{name}{entry.rsplit('/', 1)[-1]}/", whole=whole)


def _members(document: Any, key: str) -> list[tuple[str, Any]]:
    members = document.get(key) if isinstance(document, Mapping) else None
    return [(str(name), member) for name, member in members.items()] if isinstance(members, Mapping) else []


def _document(files: Any, path: str) -> Any:
    """Returns a JSON document; None where there is none, as a store may not let everybody see."""
    try:
        facts = files.info(path)
        if facts["type"] != "file":
            return None
        if (facts.get("size") or 0) > MOST_BYTES:
            raise DataError(f"{path} has more than {MOST_BYTES} bytes, the store is damaged")
        return json.loads(files.cat_file(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}), the store is damaged") from None


def _folders(files: Any, folder: str) -> list[str]:
    try:
        entries = files.ls(folder, detail=True)
    except (OSError, NotImplementedError):  # a web server lists nothing, and then nobody finds an array there
        return []
    return sorted(entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory")


def _check_2(document: Mapping[str, Any], where: str) -> None:
    filters = document.get("filters") or []
    codecs = [*(filters if isinstance(filters, list) else [filters]), document.get("compressor")]
    names = [_check_codec(codec, "id", where) for codec in codecs if codec is not None]
    kind = document.get("dtype")
    if kind == "|O" and len(filters) == 1 and names[0] in TEXT_CODECS:
        return
    if not isinstance(kind, str) or not NUMBERS_2.fullmatch(kind):
        raise _refused(where, "type", kind)


def _check_3(document: Mapping[str, Any], where: str) -> None:
    kind = document.get("data_type")
    name = kind.get("name") if isinstance(kind, Mapping) else kind
    if not isinstance(name, str) or not TYPES_3.fullmatch(name):
        raise _refused(where, "type", name)
    _check_codecs_3(document.get("codecs"), where)


def _check_codecs_3(codecs: Any, where: str) -> None:
    for codec in codecs if isinstance(codecs, Sequence) and not isinstance(codecs, str) else [codecs]:
        if _check_codec(codec, "name", where) == "sharding_indexed":
            inner = codec.get("configuration", {}) if isinstance(codec, Mapping) else {}
            _check_codecs_3(inner.get("codecs", []), where)
            _check_codecs_3(inner.get("index_codecs", []), where)


def _check_codec(codec: Any, key: str, where: str) -> str:
    name = codec.get(key) if isinstance(codec, Mapping) else codec
    if not isinstance(name, str) or not CODECS.fullmatch(name.removeprefix("numcodecs.")):
        raise _refused(where, "codec", name)
    return name


def _refused(where: str, what: str, name: Any) -> DataError:
    return DataError(
        f"{where} has the {what} {name!r} and is not opened: only numbers, times and text in the usual codecs are; "
        "write it without, for example with blosc or zstd"
    )
