"""The page of private calls lists what the code uses, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "private-apis.md"
FILES = [*ROOT.glob("sciml/**/*.py"), *ROOT.glob("domains/**/*.py"), *ROOT.glob("scripts/*.py")]
PUBLIC = {"_asdict", "_exit"}
"""Documented in spite of their names: of named tuples, and of os."""
DOUBLE = {"__compatible_ops__", "__create_chunk_list__"}
"""Of DeepSpeed and torch; all other names between double underscores are Python's."""


def is_private(name: str) -> bool:
    return name in DOUBLE or (name.startswith("_") and name.strip("_") != "" and not name.endswith("__"))


def own_names(trees: list[ast.AST]) -> set[str]:
    """Returns names that the code itself defines: functions, classes, variables, and attributes of ``self``."""
    names: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is(node.value, "self"):
            names.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "__setattr__":
            names |= {a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return names


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def private_names(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Yields private names of other packages: imported, read from an object, or given as a keyword."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in ("sciml", "domains"):
            yield from [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.Attribute):
            inherited = isinstance(node.value, ast.Call) and _is(node.value.func, "super")
            if inherited or node.attr not in own:
                yield node.attr
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.arg


def in_code() -> set[tuple[str, str]]:
    """Returns files and the private names that they use, without modules that only lead to one."""
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in FILES}
    own = own_names(list(trees.values()))
    found = {(path, name) for path, tree in trees.items() for name in private_names(tree, own) if is_private(name)}
    return {(path, name) for path, name in found if name not in PUBLIC}


def on_page() -> list[tuple[set[str], set[str]]]:
    """Returns the names and the files of each row."""
    rows = [line.split("|")[1:3] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return [
        ({name for code in re.findall(r"`([^`]+)`", calls) for name in re.findall(r"\w+", code)},
         set(re.findall(r"`([^`]+)`", files)))
        for calls, files in rows
    ]  # fmt: skip


def test_every_private_call_is_on_the_page():
    listed = {(path, name) for names, files in on_page() for path in files for name in names}
    assert in_code() - listed == set()


def test_every_row_of_the_page_is_in_its_files():
    for names, files in on_page():
        texts = {path: (ROOT / path).read_text() for path in files}
        # The first words of dotted calls are kinds of objects, which may go by other names in the code.
        wanted = {name for name in names if is_private(name)} or names
        for name in wanted:
            assert any(re.search(rf"\b{name}\b", text) for text in texts.values()), name
        for path, text in texts.items():
            assert any(re.search(rf"\b{name}\b", text) for name in wanted), path


def test_names_without_an_underscore_are_in_the_code_too():
    """What a row lists after its first call stands in the code as it is written."""
    code = "\n".join(path.read_text() for path in FILES)
    listed = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    for name in (call.split("(")[0].split(".")[-1] for calls in listed for call in re.findall(r"`([^`]+)`", calls)):
        assert re.search(rf"\b{name}\b", code), name
