"""What all commands do alike."""

import os
import subprocess
import sys

import pytest

from sciml.__main__ import main as sciml_command
from sciml.app.cli import main
from sciml.app.verbs import SUMMARIES
from sciml.core.installation import CONF


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        main("plan", ["--cfg"])


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_nor_is_one_that_has_seen_enough_of_the_verbs(word, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "argv", ["sciml", word])
    with os.fdopen(writing, "w") as left:
        monkeypatch.setattr(sys, "stdout", left)
        sciml_command()


def test_every_script_is_a_verb():
    scripts = {path.stem for path in (CONF.parent / "scripts").glob("*.py")}
    assert scripts == set(SUMMARIES)


@pytest.mark.parametrize("verb", SUMMARIES)
def test_help_of_every_verb_says_what_it_does_and_shows_its_keys(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main(verb, ["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(SUMMARIES[verb])
    assert f"python scripts/{verb}.py" in said
    assert "  output=text" in said


def test_help_imports_no_torch():
    program = (
        "import sys; from sciml.app.cli import main\n"
        "try: main('train', ['--help'])\n"
        "finally: assert not {'torch', 'xarray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True)
