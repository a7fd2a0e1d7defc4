"""What the documentation says of the project: its links, files and commands exist, and its words are the suite's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sciml.app.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "data/*/README.md")
    for page in ROOT.glob(pattern)
)
WIDTH = 100
FILE = re.compile(r"\b(?:sciml|domains|scripts|benchmarks|tests|conf|docs|data)/[\w./-]*\w\.(?:py|yaml|md|nc)\b")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:python|torchrun) [^`|\n]*?scripts/(\w+\.py[^`|\n]*)")
REPLACED = {
    "companion": "reference model",
    "pretend": "fake",
    "traffic": "communication volume",
    "the talk|=talk": "Megatron-DeepSpeed",
    "goes on on": "resumes on",
    "beats .* on none": "worse than",
}


def read(page: str) -> str:
    return (ROOT / page).read_text()


def prose(page: str) -> list[str]:
    """The lines of a page outside code blocks, tables and pictures."""
    text = re.sub(r"^ *```.*?^ *```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    return [line for line in text.splitlines() if not line.lstrip().startswith(("|", "!["))]


def anchors(page: str) -> set[str]:
    """The headings of a page as links name them."""
    headings = [line.lstrip("# ").lower() for line in prose(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def commands() -> dict[str, list[str]]:
    """The words of every command of the pages that starts a script, by themselves joined."""
    found = {}
    for page in PAGES:
        for command in COMMAND.findall(read(page).replace("\\\n", " ")):
            words = shlex.split(command, comments=True)
            found[" ".join(words)] = words
    return {command: words for command, words in found.items() if "--help" not in words}


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_folded(page):
    long = [line for line in prose(page) if len(line) > WIDTH and len(line.split()) > 2]
    assert not long


@pytest.mark.parametrize("page", PAGES)
def test_links_hold(page):
    for link in LINK.findall("\n".join([*prose(page), *re.findall(r"^(?:\||!\[).*", read(page), re.MULTILINE)])):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert path.is_file(), f"{page}: {link}"
        assert not anchor or anchor in anchors(path.relative_to(ROOT).as_posix()), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
    made = {"conf/cluster/this_machine.yaml"}
    missing = [name for name in FILE.findall(read(page)) if not (ROOT / name).exists() and name not in made]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_words_are_those_of_the_field(page):
    text = " ".join(prose(page)).lower()
    assert not {word: better for word, better in REPLACED.items() if re.search(word, text)}


@pytest.mark.parametrize("words", [pytest.param(words, id=command) for command, words in commands().items()])
def test_commands_compose(words, capsys):
    script, *arguments = words
    main(script.removesuffix(".py"), [*arguments, "--cfg"])
    assert capsys.readouterr().out
