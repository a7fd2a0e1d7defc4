"""What tests of commands share."""

import pytest

from sciml.app.cli import main


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs a command that must be refused; returns what it said."""

    def run(verb, *arguments, code=2):
        own = [] if verb in ("prepare", "simulate", "doctor") else [f"runs_dir={tmp_path}"]
        with pytest.raises(SystemExit) as ended:
            main(verb, [*arguments, *own])
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert ended.value.code == code, said
        assert said.startswith("error: ")
        assert not list(tmp_path.glob("*/*/run.json"))
        return said

    return run
