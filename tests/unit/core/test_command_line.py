import shlex
import subprocess

import pytest

from sciml.core.command_line import CONFIG_DIR, command
from sciml.run.compose import compose


@pytest.fixture(autouse=True)
def own_configuration():
    """As in a process that was started without --config-dir, whatever other tests have called before."""
    token = CONFIG_DIR.set(None)
    yield
    CONFIG_DIR.reset(token)


def test_plain_values_stay_as_they_are():
    assert (
        command("train", domain="climate", resume="runs/a-1")
        == "python scripts/train.py domain=climate resume=runs/a-1"
    )
    assert command("predict", "structures=FILE", run="a") == "python scripts/predict.py run=a structures=FILE"


@pytest.mark.parametrize(
    "name",
    ["$(touch x)", "`id`", "a b", "it's", 'say "so"', "a;b", "a,b", "[a]", "{a: b}", "${oc.env:HOME}", "a\\", "a\\'b",
     "a=b", "null", "1e3", "~", "#a", "a\nb", "ä/ö", "(a)", "*?"],
)  # fmt: skip
def test_the_shell_and_hydra_read_the_name_of_a_folder_as_it_is(name):
    line = command("evaluate", run=f"runs/{name}")
    words = subprocess.run(
        ["sh", "-c", f'for w in {line}; do printf "%s\\0" "$w"; done'], capture_output=True, text=True
    )
    *_, argument = words.stdout.rstrip("\0").split("\0")
    assert shlex.split(line)[-1] == argument
    assert compose("evaluate", [argument]).config["run"] == f"runs/{name}"


def test_next_commands_name_the_folder_of_ones_own_groups():
    token = CONFIG_DIR.set("my conf")
    try:
        assert command("evaluate", run="a") == "python scripts/evaluate.py '--config-dir=my conf' run=a"
    finally:
        CONFIG_DIR.reset(token)
