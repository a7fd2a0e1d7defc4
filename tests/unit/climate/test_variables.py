import pytest

from domains.climate.data.units import plain_unit
from domains.climate.data.variable import Role
from domains.climate.data.variables import channel_title, channel_unit, find, identify, parse_channel, parse_channels
from domains.climate.data.vocabulary import VARIABLES
from sciml.core.errors import ConfigError


def test_every_variable_is_found_by_all_its_names():
    for variable in VARIABLES:
        for name in (variable.name, variable.short, *variable.aliases):
            assert identify(name) is variable


@pytest.mark.parametrize(
    ("text", "name", "level"),
    [
        ("z500", "geopotential", 500),
        ("t850", "temperature", 850),
        ("geopotential_500", "geopotential", 500),
        ("z_1000", "geopotential", 1000),
        ("t2m", "2m_temperature", None),
        ("2t", "2m_temperature", None),
        ("u10", "10m_u_component_of_wind", None),
        ("u_10", "u_component_of_wind", 10),
        ("tp6h", "total_precipitation_6hr", None),
        ("mean_sea_level_pressure", "mean_sea_level_pressure", None),
    ],
)
def test_a_channel_is_read(text, name, level):
    channel = parse_channel(text)
    assert (channel.variable.name, channel.level) == (name, level)
    assert parse_channel(channel.name) == channel


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("zz500", "did you mean 'z500'"),
        ("t2n", "did you mean 't2m'"),
        ("z", "e.g. z500"),
        ("t2m500", "write t2m"),
        ("2m_temprature", "did you mean '2m_temperature'"),
    ],
)
def test_a_wrong_channel_gets_one_that_works(text, advice):
    with pytest.raises(ConfigError, match=advice) as caught:
        parse_channel(text, key="data.channels")
    assert caught.value.key == "data.channels"


def test_forcings_statics_and_repeats_are_no_channels():
    for wrong in (["tisr"], ["lsm"], ["t2m", "2m_temperature"]):
        with pytest.raises(ConfigError):
            parse_channels(wrong)
    assert find("tisr").role is Role.FORCING


def test_units_in_any_spelling():
    assert plain_unit("m**2 s**-2") == plain_unit("m^2/s^2") == plain_unit("m2 s-2") == plain_unit("m2/s2")
    assert plain_unit("kg kg**-1") == plain_unit("kg/kg")
    assert plain_unit("(0 - 1)") == plain_unit("1") == plain_unit("dimensionless")


@pytest.mark.parametrize(
    ("name", "unit", "value", "canonical"),
    [
        ("t2m", "Celsius", 10.0, 283.15),
        ("t2m", "degrees C", 10.0, 283.15),
        ("t2m", "Kelvin", 280.0, 280.0),
        ("msl", "Pascals", 1e5, 1e5),
        ("msl", "mbars", 1000.0, 1e5),
        ("w", "Pascal/s", 2.0, 2.0),
        ("q", "grams/kg", 7.0, 0.007),
        ("u10", "meters/second", 3.0, 3.0),
        ("u10", "meters per second", 3.0, 3.0),
        ("r", "percent", 80.0, 80.0),
        ("tcc", "Percent", 80.0, 0.8),
        ("tcc", "fraction", 0.8, 0.8),
        ("mtpr", "kg s-1 m-2", 1.0, 1.0),
        ("mtpr", "mm/day", 86400.0, 1.0),
        ("t2m", "degC", -10.0, 263.15),
        ("msl", "hPa", 1013.25, 101325.0),
        ("z", "m", 100.0, 980.665),
        ("z", "gpm", 5500.0, 53936.575),
        ("z", "gpdm", 550.0, 53936.575),
        ("orography", "m+2 s-2", 980.665, 980.665),
        ("q", "g/kg", 7.0, 0.007),
        ("tp", "mm", 3.0, 0.003),
        ("lsm", "%", 50.0, 0.5),
        ("u", "m s**-1", 4.0, 4.0),
    ],
)
def test_conversion_is_exact(name, unit, value, canonical):
    how = find(name).conversion(unit)
    assert how.scale * value + how.offset == pytest.approx(canonical, rel=1e-12)


def test_a_foreign_unit_has_no_conversion():
    assert find("t2m").conversion("Pa") is None
    assert find("z").conversion("degC") is None
    assert find("t2m").conversion("0.1 K") is None  # a number in front is not dropped
    assert find("t2m").accepted_units == "K, degC"  # one spelling each


def test_unit_and_title_of_a_channel():
    assert channel_unit("z500") == "m2 s-2"
    assert channel_title("z500") == "Geopotential at 500 hPa"
    assert channel_title("t2m") == "2 m temperature"
    assert channel_title("u10") == "10 m eastward wind"
    assert channel_title("v850") == "Northward wind at 850 hPa"
    assert channel_title("tp24h") == "Total precipitation 24 h"


def test_meridional_winds_and_vorticity_change_sign_in_the_mirror():
    assert {v.short for v in VARIABLES if v.odd_under_mirror} == {"v", "v10", "v100m", "vo"}
