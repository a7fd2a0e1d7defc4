"""What help says of keys is what their dataclasses are."""

import dataclasses

import pytest

from sciml.core.described import Name, class_named, classes_by_key, keys_of
from sciml.training.config import OptimConfig, TrainerConfig

OPTIM = Name("sciml.training.config", "OptimConfig")
CLIMATE = Name("domains.climate.domain", "ClimateDomain")


@pytest.mark.parametrize("kind", [OptimConfig, TrainerConfig])
def test_every_key_has_a_type_a_default_and_a_meaning(kind):
    found = keys_of(Name(kind.__module__, kind.__name__))
    assert list(found) == [field.name for field in dataclasses.fields(kind)]
    for field in dataclasses.fields(kind):
        assert found[field.name].kind
        assert found[field.name].meaning
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
            assert float(found[field.name].default) == field.default


def test_types_and_meanings_are_in_words():
    keys = keys_of(OPTIM)
    assert keys["lr"].kind == "float > 0"
    assert keys["schedule"].kind == "cosine | wsd"
    assert keys["decay_steps"].kind == "int >= 1 or null"
    assert "null" in keys["clip_norm"].meaning
    assert "None" not in keys["clip_norm"].meaning


def test_names_are_followed_to_where_they_are_defined():
    data = class_named(CLIMATE, "data_config")
    assert data == Name("domains.climate.data.samples", "ClimateDataConfig")
    assert {"path", "channels"} <= set(keys_of(data))  # its own, and its base's
    assert classes_by_key(CLIMATE, "model_kinds")["unet"] == Name("sciml.models.unet", "UNetConfig")


def test_what_is_not_there_has_no_keys():
    assert keys_of(Name("no.such.module", "Config")) == {}
    assert class_named(Name("sciml.training.config", "Nothing"), "data_config") is None
