"""Climatologies against plain loops over days and years."""

import numpy as np
import pytest

from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.climatology import DAYS, DayTimes, daily_means, window_weights

SHAPE = (2, 3, 4)


def times_every(hours: int, first: str, last: str) -> np.ndarray:
    return np.arange(first, last, np.timedelta64(hours, "h"), dtype="datetime64[m]")


def fields_of(times: np.ndarray, seed: int = 0) -> np.ndarray:
    season = np.cos(2 * np.pi * WORLD.day_of_year(times) / 365.25)[:, None, None, None]
    return (280 + 10 * season + np.random.default_rng(seed).standard_normal((len(times), *SHAPE))).astype(np.float32)


def computed(times: np.ndarray, fields: np.ndarray, tmp_path, max_bytes: float = 2**30):
    calendar = DayTimes.of(times)
    means = daily_means(lambda t, c: fields[t, c], times, calendar, SHAPE, tmp_path, 17, max_bytes)
    per_day = (len(times) - 1) / ((times[-1] - times[0]) / np.timedelta64(1, "D"))
    smooth = np.full((len(calendar.hours), DAYS, *SHAPE), np.nan)
    for hour, days, values in means.smoothed(per_day, 25):
        smooth[hour, days] = values
    return calendar, smooth, means


def brute_force(times: np.ndarray, fields: np.ndarray, hour: int, day: int) -> np.ndarray:
    """Mean over all states at an hour within 30 days, weighted by closeness."""
    at_hour = (times.astype("datetime64[h]").astype(int) % 24) == hour
    total, weight = np.zeros(SHAPE), 0.0
    for time, field in zip(times[at_hour], fields[at_hour].astype(np.float64), strict=True):
        distance = abs(int(WORLD.day_of_year(np.array([time]))[0]) - day)
        closeness = max(0.0, 1 - min(distance, 366 - distance) / 30)
        total, weight = total + closeness * field, weight + closeness
    return total / weight


@pytest.mark.parametrize("max_bytes", [2**30, 2**14])
def test_parity_over_years_wrapping_round_the_year(tmp_path, max_bytes):
    times = times_every(12, "2003-01-01", "2006-01-01")  # with a leap year
    fields = fields_of(times)
    calendar, smooth, _ = computed(times, fields, tmp_path, max_bytes)
    assert calendar.hours == (0.0, 12.0)
    for number, hour in enumerate((0, 12)):
        for day in (0, 5, 58, 59, 180, 340, 364, 365):
            np.testing.assert_allclose(smooth[number, day], brute_force(times, fields, hour, day), rtol=2e-7)


def test_the_window_is_triangular_of_61_days():
    weights = window_weights()
    assert weights[100, 100] == 1
    assert weights[100, 115] == pytest.approx(0.5)
    assert weights[100, 130] == 0
    assert weights[0, 365] == pytest.approx(29 / 30)
    assert np.count_nonzero(weights[200]) == 59  # the two outermost days of the 61 have weight 0


def test_less_than_a_year_passes_over_into_the_overall_mean(tmp_path):
    times = times_every(12, "2001-01-01", "2001-06-01")
    fields = fields_of(times)
    _, smooth, _ = computed(times, fields, tmp_path)
    assert np.isfinite(smooth).all()
    midnight = fields[::2].astype(np.float64).mean(0)
    np.testing.assert_allclose(smooth[0, 250], midnight, rtol=1e-6)  # nothing within 30 days
    np.testing.assert_allclose(smooth[0, 75], brute_force(times, fields, 0, 75), rtol=1e-6)  # a full window
    full = window_weights()[75].sum()
    have = window_weights()[170][:151].sum()  # day 170: the window's early end is filled, the rest is the mean
    expected = (have * brute_force(times, fields, 0, 170) + (full - have) * midnight) / full
    np.testing.assert_allclose(smooth[0, 170], expected, rtol=1e-4)


def test_a_step_that_does_not_divide_the_day(tmp_path):
    times = times_every(7, "2001-01-01", "2001-01-08")
    fields = fields_of(times)
    calendar, smooth, _ = computed(times, fields, tmp_path)
    assert calendar.hours == (0.0, 6.0, 12.0, 18.0)
    hours, days = calendar.locate(
        np.array(["2001-01-01T23:00", "2000-12-31T22:00", "2001-01-01T08:00"], "datetime64[m]")
    )
    assert hours.tolist() == [0, 0, 1]
    assert days.tolist() == [1, 0, 0]  # near midnight the next day counts
    assert np.isfinite(smooth).all()


def test_an_hour_never_seen_has_the_mean_of_the_others(tmp_path):
    times = times_every(7, "2001-01-01", "2001-01-01T20:00")  # 0, 7 and 14 h: nothing near 18 h
    fields = fields_of(times)
    _, smooth, _ = computed(times, fields, tmp_path)
    np.testing.assert_allclose(smooth[3, 200], fields.astype(np.float64).mean(0), rtol=1e-6)


def test_weeks(tmp_path):
    times = times_every(6, "2003-01-01", "2005-01-01")
    fields = fields_of(times)
    _, _, means = computed(times, fields, tmp_path)
    weeks = DayTimes((0.0,)).week(times)
    assert weeks.max() == 52
    for week in (0, 8, 51, 52):
        expected = fields[weeks == week].astype(np.float64).mean(0)
        np.testing.assert_allclose(means.weekly.value((week,)), expected, rtol=1e-6)


def test_days_that_are_smoothed_when_asked_for_are_those_smoothed_beforehand(tmp_path):
    times = times_every(6, "2003-12-20", "2004-02-10")
    fields = fields_of(times)
    _, smooth, means = computed(times, fields, tmp_path)
    per_day = (len(times) - 1) / ((times[-1] - times[0]) / np.timedelta64(1, "D"))
    assert len(means.days) == 52  # the days that occur
    for hour in range(4):
        window = means.window(hour, per_day)
        for day in (0, 10, 39, 41, 60, 200, 355):
            one = window.smooth(day, lambda near, hour=hour: means.daily.mean[hour, near], means.overall(hour))
            np.testing.assert_allclose(one, smooth[hour, day], rtol=1e-6)


@pytest.mark.parametrize(("name", "length"), [("360_day", 360), ("noleap", 365), ("all_leap", 366)])
def test_the_window_wraps_round_the_year_of_the_calendar(tmp_path, name, length):
    """One year of a cosine: its triangular mean over the circle of days, at New Year as at any other time."""
    calendar, days = Calendar(name), np.arange(length)
    times = calendar.moment("2001-01-01") + days * np.timedelta64(1440, "m")
    season = 20 * np.cos(2 * np.pi * days / length)
    fields = np.broadcast_to(season[:, None, None, None], (length, *SHAPE)).astype(np.float32)
    day_times = DayTimes.of(times, calendar)
    means = daily_means(lambda t, c: fields[t, c], times, day_times, SHAPE, tmp_path, 50, 2**30)
    smooth = np.concatenate([values for _, _, values in means.smoothed(1.0, 100)])
    around = np.arange(-29, 30)
    closeness = 1 - np.abs(around) / 30
    expected = (season[(days[:, None] + around) % length] * closeness).sum(1) / closeness.sum()
    np.testing.assert_allclose(smooth[:length, 1, 2, 3], expected, atol=1e-5)


def with_unknown_cells(fields: np.ndarray) -> np.ndarray:
    """Channel 1 has no value on land, ever, and none in a third of the times at other cells."""
    fields = fields.copy()
    fields[:, 1][np.random.default_rng(1).random(fields[:, 1].shape) < 1 / 3] = np.nan
    fields[:, 1, 0, 0] = np.nan
    return fields


@pytest.mark.parametrize("max_bytes", [2**30, 2**14])
def test_cells_without_a_value_at_some_times_have_the_mean_of_the_others(tmp_path, max_bytes):
    times = times_every(12, "2003-01-01", "2009-01-01")  # so many years that no window lacks anything
    whole = fields_of(times)
    fields = with_unknown_cells(whole)
    _, smooth, means = computed(times, fields, tmp_path, max_bytes)
    days, expected = WORLD.day_of_year(times), fields.astype(np.float64)
    for number, day in ((0, 5), (1, 180), (0, 364)):
        rows = np.arange(number, len(times), 2)
        distance = np.abs(days[rows] - day)
        closeness = np.clip(1 - np.minimum(distance, 366 - distance) / 30, 0, None)
        known = np.isfinite(expected[rows]) * closeness[:, None, None, None]
        with np.errstate(invalid="ignore"):
            mean = np.nansum(expected[rows] * known, axis=0) / known.sum(0)
        np.testing.assert_allclose(smooth[number, day], mean, rtol=3e-7)
    np.testing.assert_allclose(means.all_time()[1, 1:], expected[:, 1, 1:].mean(0, where=~np.isnan(expected[:, 1, 1:])))
    in_week = WORLD.day_of_year(times) // 7 == 20
    np.testing.assert_allclose(means.weekly.value((20,))[1, 1:], np.nanmean(expected[in_week][:, 1, 1:], 0), rtol=1e-6)
    assert np.isnan(smooth[:, :, 1, 0, 0]).all()
    assert np.isnan(means.weekly.value((20,))[1, 0, 0])
    assert np.isnan(means.all_time()[1, 0, 0])
    _, plain, _ = computed(times, whole, tmp_path, max_bytes)
    np.testing.assert_array_equal(smooth[:, :, 0], plain[:, :, 0])


def test_windows_of_few_days_pass_over_unknown_cells_too(tmp_path):
    """A training of two months is kept by day and smoothed as it is asked for: both ways are the same."""
    times = times_every(12, "2003-01-01", "2003-03-01")
    fields = with_unknown_cells(fields_of(times))
    _, smooth, means = computed(times, fields, tmp_path)
    window = means.window(1, (len(times) - 1) / ((times[-1] - times[0]) / np.timedelta64(1, "D")))
    one = window.smooth(20, lambda near: means.daily.value((1, slice(None)))[near], means.overall(1))
    np.testing.assert_allclose(one, smooth[1, 20], rtol=1e-6)
    assert np.isfinite(one[1, 1:]).all()
    assert np.isnan(one[1, 0, 0])
