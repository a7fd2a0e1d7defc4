"""Names in annotations are known. Linters are told to pass over them, since dims of arrays look like names."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_type_in_an_annotation_is_imported():
    command = [sys.executable, "-m", "ruff", "check", "--select", "F821", "--output-format", "json", "--exit-zero",
               "sciml", "domains", "tests", "benchmarks", "scripts"]  # fmt: skip
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    names = [(found["message"].split("`")[1], found["filename"]) for found in json.loads(said)]
    assert names, "dims of arrays are found, or nothing was looked at"
    assert [name for name in names if not name[0].islower() and not name[0].startswith("_")] == []
