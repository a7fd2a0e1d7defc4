"""Names are known: linters are told to pass over those that are not, since dims of arrays look like names."""

import builtins
import dis
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["sciml", "domains", "tests", "benchmarks", "scripts"]


def test_every_type_in_an_annotation_is_imported():
    command = [sys.executable, "-m", "ruff", "check", "--select", "F821", "--output-format", "json", "--exit-zero",
               *FOLDERS]  # fmt: skip
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    names = [(found["message"].split("`")[1], found["filename"]) for found in json.loads(said)]
    assert names, "dims of arrays are found, or nothing was looked at"
    assert [name for name in names if not name[0].islower() and not name[0].startswith("_")] == []


def unknown(source: str, file: str = "") -> list[str]:
    """The global names that functions of a module use, and that it does not define."""
    module = compile(source, file, "exec")
    used = {one.argval for code in within(module) for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}
    stored = {one.argval for one in dis.get_instructions(module) if one.opname in ("STORE_NAME", "STORE_GLOBAL")}
    return sorted(used - stored - {*dir(builtins), "__file__"})


def within(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from within(constant)


def test_every_name_that_a_function_uses_is_defined():
    assert unknown("import math\ndef f(x):\n    return math.ceil(x) + len(g(x))\ndef g(x): return [x]") == []
    assert unknown("def f(x):\n    return math.ceil(x)") == ["math"]
    files = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    assert len(files) > 500
    assert {str(file): names for file in files if (names := unknown(file.read_text(), str(file)))} == {}
