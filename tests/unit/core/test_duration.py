import pytest

from sciml.core.duration import as_typed, parse_hours, seconds_in
from sciml.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "hours"), [("72h", 72), ("3d", 72), ("30min", 0.5), (6, 6), ("6", 6), (" 12 h ", 12), ("3.6e-6s", 1e-9)]
)
def test_durations(text, hours):
    assert parse_hours(text) == pytest.approx(hours)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.05, "0.05s"), (123.456, "123.456s"), (3601, "3601s"), (100000, "100000s"), (86400, "24h")]
)
def test_what_is_typed_is_read_back_without_loss(seconds, text):
    assert as_typed(seconds / 3600) == text
    assert 3600 * parse_hours(text) == pytest.approx(seconds, rel=1e-12)


def test_a_bare_number_is_of_the_unit_that_is_named():
    assert parse_hours(200, unit="s") == 200 / 3600
    assert parse_hours("6h", unit="s") == 6
    with pytest.raises(ConfigError, match=r"write seconds, e\.g\. 200s"):
        parse_hours("long", unit="s")


@pytest.mark.parametrize("text", ["three days", "-6h", "", "6 weeks"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ConfigError, match=r"lead_time: .* is no duration"):
        parse_hours(text, key="lead_time")


@pytest.mark.parametrize(
    ("unit", "seconds"),
    [
        ("ms", 1e-3),
        ("Milliseconds", 1e-3),
        ("minutes since 2000-01-01 00:00", 60),
        ("hours", 3600),
        ("s", 1),
        ("days", 86400),
    ],
)
def test_units_that_files_write(unit, seconds):
    assert seconds_in(unit) == seconds


@pytest.mark.parametrize("unit", ["", "m", "D/U", "months since 2000-01-01", "1"])
def test_what_is_no_unit_of_time(unit):
    assert seconds_in(unit) is None
