import subprocess
import sys
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from annotated_types import MinLen

from sciml.core.config import at_least, build, divides, flat, one_of
from sciml.core.errors import RENAMED, ConfigError, nearest
from sciml.core.types import (
    AtLeastOne,
    Fraction,
    FractionBelowOne,
    NonNegative,
    OpenFraction,
    Positive,
    PositiveFraction,
)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    width: int = 8
    heads: AtLeastOne = 2
    names: list[str] | None = None


@dataclass(frozen=True)
class Outer:
    steps: int
    rate: Positive[float] = 0.1
    clip: Positive[float] | None = None
    seed: NonNegative[int] = 3
    share: Fraction = 0.4
    margin: FractionBelowOne = 0.1
    decay: OpenFraction | None = 0.99
    efficiency: PositiveFraction = 0.5
    engine: Literal["native", "deepspeed"] = "native"
    zero: Literal[0, 1, 2, 3] | None = None
    peaks: dict[Literal["fp32", "bf16"], Positive[float]] = field(default_factory=dict)
    engines: tuple[Literal["native", "deepspeed"], ...] | None = None
    color: Color = Color.RED
    betas: tuple[float, float] = (0.9, 0.95)
    hours: list[str] = field(default_factory=lambda: ["72h"])
    strides: Annotated[list[AtLeastOne], MinLen(1)] = field(default_factory=lambda: [1, 5])
    sizes: tuple[Positive[int], ...] = ()
    path: str | list[str] | dict[str, str] = "a.nc"
    fast: bool = False
    inner: Inner = field(default_factory=Inner)
    by_name: dict[str, Inner] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)


def test_nested_values_become_frozen_records():
    built = build(Outer, {"steps": 3, "inner": {"width": 4, "names": ["a"]}})
    assert built == Outer(3, inner=Inner(4, names=["a"]))


def test_records_may_have_names():
    assert build(Outer, {"steps": 3, "by_name": {"one": {"width": 4}}}).by_name == {"one": Inner(4)}


def test_lists_become_tuples_and_whole_numbers_floats():
    built = build(Outer, {"steps": 3, "sizes": [1, 2], "rate": 1, "betas": [0, 1]})
    assert (built.sizes, built.rate, built.betas) == ((1, 2), 1.0, (0.0, 1.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1}, "t.rat: unknown key; did you mean 't.rate'?"),
        ({"inner": {"widht": 1}}, "t.inner.widht: unknown key; did you mean 't.inner.width'?"),
        ({"by_name": {"one": {"widht": 1}}}, "t.by_name.one.widht: unknown key; did you mean 't.by_name.one.width'?"),
        (
            {"by_name": {"width": {"hdeas": 1}}},
            "t.by_name.width.hdeas: unknown key; did you mean 't.by_name.width.heads'?",
        ),
        ({"rate": -1, "stps": 4}, "t.stps: unknown key; did you mean 't.steps'?"),
        ({"steps": "many"}, "t.steps must be a whole number, got 'many'"),
        ({"steps": 1.5}, "t.steps must be a whole number, got 1.5"),
        ({"steps": True}, "t.steps must be a number, got true"),
        ({"inner": {"width": False}}, "t.inner.width must be a number, got false"),
        ({"rate": "abc"}, "t.rate must be a number, got 'abc'"),
        ({"rate": None}, "t.rate must be a number, got null"),
        ({"rate": [1]}, "t.rate must be a number, got [1]"),
        ({"rate": 0}, "t.rate must be above 0, got 0; try t.rate=0.1"),
        ({"rate": float("nan")}, "t.rate must be a finite number, got nan"),
        ({"rate": "inf"}, "t.rate must be a finite number, got 'inf'"),
        ({"betas": [0.9, float("inf")]}, "t.betas.1 must be a finite number, got inf"),
        ({"clip": -1.0}, "t.clip must be above 0, got -1.0"),
        ({"seed": -1}, "t.seed must be at least 0, got -1; try t.seed=3"),
        ({"share": 1.5}, "t.share must be at most 1, got 1.5; try t.share=0.4"),
        ({"margin": 1}, "t.margin must be below 1, got 1; try t.margin=0.1"),
        ({"decay": 0}, "t.decay must be above 0, got 0; try t.decay=0.99"),
        ({"efficiency": 0}, "t.efficiency must be above 0, got 0; try t.efficiency=0.5"),
        ({"inner": {"heads": 0}}, "t.inner.heads must be at least 1, got 0; try t.inner.heads=2"),
        ({"by_name": {"a": {"heads": 0}}}, "t.by_name.a.heads must be at least 1, got 0; try t.by_name.a.heads=2"),
        ({"engine": "nativ"}, "t.engine must be one of native, deepspeed, got 'nativ'; did you mean 'native'?"),
        ({"engine": "xyz"}, "t.engine must be one of native, deepspeed, got 'xyz'"),
        ({"engines": ["nativ"]}, "t.engines.0 must be one of native, deepspeed, got 'nativ'; did you mean 'native'?"),
        ({"peaks": {"fp23": 1.0}}, "t.peaks must be one of fp32, bf16, got 'fp23'; did you mean 'fp32'?"),
        ({"peaks": {"fp32": 0}}, "t.peaks.fp32 must be above 0, got 0"),
        ({"zero": 4}, "t.zero must be one of 0, 1, 2, 3, got 4"),
        ({"color": "rad"}, "t.color must be one of red, blue, got 'rad'; did you mean 'red'?"),
        ({"betas": [0.9]}, "t.betas.1 must be given"),
        ({"betas": [0.9, 0.9, 0.9]}, "t.betas must be at most 2 long, got [0.9,0.9,0.9]; try t.betas=[0.9,0.95]"),
        ({"hours": "72h"}, "t.hours must be a list, got '72h'; try t.hours=[72h]"),
        ({"strides": []}, "t.strides must be at least 1 long, got []; try t.strides=[1,5]"),
        ({"strides": [1, 0]}, "t.strides.1 must be at least 1, got 0; try t.strides=[1,5]"),
        ({"sizes": 3}, "t.sizes must be a list, got 3; try t.sizes=[3]"),
        ({"fast": "maybe"}, "t.fast must be true or false, got 'maybe'"),
        ({"inner": 4}, "t.inner must be a group of keys, got 4"),
        ({"inner": None}, "t.inner must be a group of keys, got null"),
        ({"by_name": {"one": 4}}, "t.by_name.one must be a group of keys, got 4"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_key(values, message):
    with pytest.raises(ConfigError) as refused:
        build(Outer, {"steps": 3, **values}, prefix="t")
    assert str(refused.value) == message


def test_a_key_without_a_default_must_be_given():
    with pytest.raises(ConfigError, match=r"^trainer\.steps must be given$"):
        build(Outer, {}, prefix="trainer")
    with pytest.raises(ConfigError, match=r"^steps must be given$"):
        build(Outer, {})


def test_values_must_be_a_group_of_keys():
    with pytest.raises(ConfigError, match=r"^model must be a group of keys, got vit$"):
        build(Outer, "vit", prefix="model")


def test_one_of_offers_the_nearest_value():
    assert one_of("fp32", ("fp32", "bf16"), "trainer.precision") == "fp32"
    with pytest.raises(ConfigError) as refused:
        one_of("bf61", ("fp32", "bf16"), "trainer.precision")
    assert str(refused.value) == "trainer.precision must be one of fp32, bf16, got 'bf61'; did you mean 'bf16'?"
    with pytest.raises(ConfigError, match=r"^zero must be one of 1, 2, got 7$"):
        one_of(7, (1, 2), "zero")


def test_at_least_says_a_number_that_works():
    at_least(4, 4, "nx")
    with pytest.raises(ConfigError, match=r"^nx must be at least 4, got 3; try nx=64$"):
        at_least(3, 4, "nx", example=64)
    with pytest.raises(ConfigError, match=r"^share must be at least 0, got -0\.5; try share=0$"):
        at_least(-0.5, 0, "share")
    with pytest.raises(ConfigError, match="got nan"):
        at_least(float("nan"), 0, "share")


def test_divides_lists_numbers_that_do():
    divides(4, 64, key="model.num_heads", of="model.width")
    with pytest.raises(ConfigError) as refused:
        divides(3, 8, key="model.num_heads", of="model.width")
    assert str(refused.value) == "model.num_heads must divide model.width, got 3 and 8; try one of 1, 2, 4, 8"
    with pytest.raises(ConfigError, match="got 0 and 8"):
        divides(0, 8, key="model.num_heads", of="model.width")


def test_leaves_have_dotted_keys():
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_key_leads_to_its_new_name(old, new):
    assert nearest(old, {new, "depth"}) == f"did you mean {new!r}?"
    assert new not in nearest(old, {"depth", "width"})


def test_nothing_near_lists_everything():
    assert nearest("xyz", ["alpha", "beta"]) == "known: alpha, beta"


def test_checking_a_configuration_does_not_import_torch():
    program = (
        "import sys\n"
        "from sciml.core.config import build\n"
        "from sciml.training.config import TrainerConfig\n"
        "from sciml.parallel.config import ParallelConfig\n"
        "from sciml.training.engine_config import EngineConfig\n"
        "for cls in (TrainerConfig, ParallelConfig, EngineConfig):\n"
        "    build(cls, {})\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


def test_a_number_that_is_typed_for_text_is_text():
    built = build(Outer, {"steps": 1, "path": 2024})
    assert built.path == "2024"
    assert build(Outer, {"steps": 1, "path": [1, "b.nc"]}).path == ["1", "b.nc"]
