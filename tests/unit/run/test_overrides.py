"""Overrides mean what is typed: paths and text with any letters, and everything else as Hydra reads it."""

from __future__ import annotations

import os
import random

import pytest

from sciml.app.cli import _overrides
from sciml.core.errors import ConfigError
from sciml.run.compose import compose
from sciml.run.overrides import as_override

ODD = [
    "a,b.nc", "a#b.nc", "#x", "a&b.nc", "it's.nc", "wow!.nc", "düsseldorf.nc", "数据.nc", "era5 (1).nc", "x?a=1",
    "*.nc", "@x", "|x", "[a].nc", "{a}.nc", "a:b.nc", "a: b.nc", "C:\\data\\x.nc", "a=b.nc", " x  y ", "%x", "a;b",
    "a`b", "$HOME/x", 'a"b.nc', "-x.nc", "--x", "a\\b", "\\", "a\\'", "s3://b/o?x=1&y=2", "/a b/c[1].nc", "<x>", "^x",
    "a\tb", "[a,b", "{a", "(a)", "a)", "!", "?", "era5,2020.nc", "a$b", "'", "x'y\"z", "", "$", "${", "none",
]  # fmt: skip


def path_of(value):
    return paths_of([value])[0]


def paths_of(values):
    """Returns what a training is told where values are typed for keys of its data, all in one command."""
    typed = [f"data.path_{number}={value}" for number, value in enumerate(values)]
    told = compose("train", ["domain=climate", *typed]).config["data"]
    return [told[f"path_{number}"] for number in range(len(values))]


def test_text_is_what_was_typed():
    typed = {f"data.path_{number}": value for number, value in enumerate(ODD)}
    assert compose("evaluate", [f"{key}={value}" for key, value in typed.items()]).overrides == typed
    assert paths_of(ODD) == ODD


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_any_text_is_what_was_typed(seed):
    letters = random.Random(seed)
    alphabet = "ab7 ,.:;'\"\\[](){}=#&!*?@|<>^%$~`+-/\té"
    values = ["x" + "".join(letters.choices(alphabet, k=letters.randint(1, 12))) for _ in range(100)]
    assert all(as_override(f"data.path={value}").startswith("data.path=") for value in values)
    assert paths_of(values) == values


@pytest.mark.parametrize("value", ["~/era5.nc", "~", "~/a b,c.nc"])
def test_home_is_found(value, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert path_of(value) == value.replace("~", "/home/ada")
    assert path_of(f"[{value},x]") == ([*value.replace("~", "/home/ada").split(","), "x"])
    assert os.path.expanduser(value) == value.replace("~", "/home/ada")


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("5", 5), ("1e-3", 1e-3), ("true", True), ("null", None), ("[1,2]", [1, 2]), ("[a,b c]", ["a", "b c"]),
        ("[a#b,it's]", ["a#b", "it's"]), ("{a: 1}", {"a": 1}), ("'a b'", "a b"), ("${seed}", 0),
        ("[[1,2],[3]]", [[1, 2], [3]]),
    ],
)  # fmt: skip
def test_numbers_flags_lists_and_interpolations_are_read(value, read):
    assert path_of(value) == read


def test_a_year_is_a_name():
    from sciml.run.spec import RunOptions

    assert RunOptions.build(compose("train", ["run=2024"]).config).run == "2024"


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("optim.lr=1e-3,1e-4", "optim.lr must be one value, got several; a list is written as"),
        ("seed=choice(1,2)", "seed must be one value, got several"),
        ("seed=range(1,5)", "seed must be one value, got several"),
        ("nothing", "'nothing' is no override; write key=value"),
        ("a b=3", "'a b' is no key; write key=value"),
        ("=3", "'' is no key"),
    ],
)
def test_what_is_no_override_is_refused(argument, says):
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        as_override(argument)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--dry-run"], ["dry_run=true"]),
        (["--trainer.max_steps", "5", "seed=1"], ["trainer.max_steps=5", "seed=1"]),
        (["--trainer.max_steps=5"], ["trainer.max_steps=5"]),
        (["--dry-run", "seed=1"], ["dry_run=true", "seed=1"]),
        (["--submit", "--nodes", "2"], ["submit=true", "nodes=2"]),
        (["data.path=--x"], ["data.path=--x"]),
    ],
)
def test_switches_and_values_after_blanks(words, found):
    assert _overrides(words) == found


@pytest.mark.parametrize(
    ("words", "says"), [(["seed:", "5"], "seed: 5 is no override; write seed=5"), (["seed:"], "seed: ")]
)
def test_yaml_on_the_command_line_is_answered(words, says):
    with pytest.raises(ConfigError, match=says):
        _overrides(words)
