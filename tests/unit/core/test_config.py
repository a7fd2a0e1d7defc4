from dataclasses import dataclass, field

import pytest

from sciml.core.config import build, choice
from sciml.core.errors import ConfigError, nearest


@dataclass(frozen=True)
class Inner:
    width: int = 8
    names: list[str] | None = None


@dataclass(frozen=True)
class Outer:
    steps: int
    rate: float = 0.1
    inner: Inner = field(default_factory=Inner)
    by_name: dict[str, Inner] = field(default_factory=dict)


def test_nested_values_become_frozen_records():
    built = build(Outer, {"steps": 3, "inner": {"width": 4, "names": ["a"]}})
    assert built == Outer(3, 0.1, Inner(4, ["a"]))


def test_records_may_have_names():
    assert build(Outer, {"steps": 3, "by_name": {"one": {"width": 4}}}).by_name == {"one": Inner(4)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 3, "rat": 1}, "unknown key; did you mean 'rate'"),
        ({"steps": 3, "inner": {"widht": 1}}, "inner.widht: unknown key; did you mean 'width'"),
        ({"steps": "many"}, "steps: .*not 'many'"),
        ({"steps": 3, "inner": {"width": 1.5}}, "inner.width: "),
        ({"steps": 3, "inner": 4}, "inner: "),
        ({"steps": 3, "by_name": {"one": {"widht": 1}}}, "by_name.one.widht: unknown key; did you mean 'width'"),
        ({}, "steps: a value is required"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(values, message):
    with pytest.raises(ConfigError, match=message):
        build(Outer, values)


def test_the_prefix_stands_before_the_key():
    with pytest.raises(ConfigError, match=r"trainer\.stps"):
        build(Outer, {"stps": 1, "steps": 1}, prefix="trainer")


def test_a_choice_offers_the_nearest_value():
    assert choice("fp32", ("fp32", "bf16"), "trainer.precision") == "fp32"
    with pytest.raises(ConfigError, match="did you mean 'bf16'"):
        choice("bf61", ("fp32", "bf16"), "trainer.precision")


def test_nothing_near_lists_everything():
    assert nearest("xyz", ["alpha", "beta"]) == "known: alpha, beta"
