"""Forecasts reach their lead times by the intervals that a model was trained on, in hours and in seconds."""

from __future__ import annotations

import pytest

from sciml.core.errors import ConfigError
from sciml.domain.forecasting import ForecastRequest
from sciml.forecast.intervals import multiple_of_step, parse_intervals, requested_trees, scoring_paths

SECONDS = 1 / 3600


def asked(lead_hours, **options):
    return ForecastRequest(init_time=None, lead_hours=lead_hours, **options)


def test_intervals_and_ranges():
    assert parse_intervals(["72h", "6h..18h"], 6.0, "task.intervals") == (6.0, 12.0, 18.0, 72.0)
    with pytest.raises(ConfigError, match="nearest that is: 72h"):
        parse_intervals(["70h"], 6.0, "task.intervals")
    with pytest.raises(ConfigError, match="no multiple"):
        parse_intervals(["7h..11h"], 6.0, "task.intervals")
    with pytest.raises(ConfigError, match=r"at least one .* \[20s\]"):
        parse_intervals([], 20 * SECONDS, "task.intervals")


def steps_to(lead_hours, intervals, step_hours, **options):
    """Returns the steps to each lead time of the only tree, in hours."""
    (tree,) = requested_trees(asked(lead_hours, **options), intervals, step_hours)
    found = {}
    for lead in tree.wanted:
        steps, at = [], lead
        while at:
            steps.append((at - tree.parents[at]) * step_hours)
            at = tree.parents[at]
        found[lead * step_hours] = tuple(reversed(steps))
    return found


def test_every_lead_time_is_reached_by_the_fewest_steps():
    assert steps_to(72.0, (6.0, 24.0, 48.0), 6.0)[72.0] == (48.0, 24.0)
    leads = steps_to(36.0, (6.0, 12.0, 18.0, 24.0), 6.0)
    assert leads == {6.0: (6.0,), 12.0: (12.0,), 18.0: (18.0,), 24.0: (24.0,), 30.0: (24.0, 6.0), 36.0: (24.0, 12.0)}


def test_days_far_ahead_start_from_the_same_few_states():
    leads = steps_to(720.0, [12.0 * n for n in range(1, 11)], 12.0)
    assert list(leads) == [12.0 * n for n in range(1, 61)]
    assert leads[720.0] == (120.0,) * 6
    assert leads[708.0] == (*(120.0,) * 5, 108.0)
    assert max(map(len, leads.values())) == 6


def test_a_lead_time_beside_the_multiples_is_reached_too():
    assert steps_to(30.0, (12.0, 18.0), 6.0) == {12.0: (12.0,), 24.0: (12.0, 12.0), 30.0: (18.0, 12.0)}


def test_a_wanted_interval_is_taken():
    assert steps_to(24.0, (6.0, 24.0), 6.0, every_hours=6.0)[24.0] == (6.0,) * 4
    with pytest.raises(ConfigError, match="not trained on this interval; one of 6h, 24h"):
        steps_to(24.0, (6.0, 24.0), 6.0, every_hours=12.0)


def test_combined_are_all_intervals_that_divide():
    trees = requested_trees(asked(48.0, combine_intervals=True), (6.0, 18.0, 24.0), 6.0)
    assert [tree.wanted for tree in trees] == [tuple(range(1, 9)), (4, 8)]


def test_steps_of_seconds_are_counted_and_named_in_seconds():
    steps = (20 * SECONDS, 60 * SECONDS)
    leads = steps_to(180 * SECONDS, steps, 20 * SECONDS)
    assert leads[max(leads)] == pytest.approx((60 * SECONDS,) * 3)
    with pytest.raises(ConfigError, match=r"90 s is not a multiple of the data's step of 20 s; .*: 80s"):
        steps_to(90 * SECONDS, steps, 20 * SECONDS)
    with pytest.raises(ConfigError, match=r"no steps .*\(60s\) lead to 80 s; for example 60s"):
        steps_to(80 * SECONDS, steps[1:], 20 * SECONDS)


def test_times_of_files_need_not_be_exact():
    assert multiple_of_step(100 * SECONDS, 20.000001 * SECONDS, "lead_time") == pytest.approx(100 * SECONDS)


def test_scores_go_straight_to_each_interval_or_along_one_path():
    assert scoring_paths((24.0, 72.0), (24.0, 72.0), "key") == [(24.0,), (72.0,)]
    assert scoring_paths((24.0, 72.0), (12.0, 24.0), "key") == [(24.0, 24.0, 24.0)]
    with pytest.raises(ConfigError, match="divides them all"):
        scoring_paths((24.0, 72.0), (48.0,), "key")
