"""Scores are means over all cases of all ranks, and skills know which values of a metric are better."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from sciml.domain.score import Metric, Score
from sciml.forecast.evaluation import mean_scores, mean_skill, score_table
from sciml.forecast.lead_time_sums import LeadTimeSums

MAE = Metric("mae")
RMSE = Metric("rmse", reduce=math.sqrt)
PURITY = Metric("purity", better="higher", perfect=1.0, unit="1")
LIKELIHOOD = Metric("log_likelihood", better="higher", perfect=None)


def filled(*batches):
    """Sums of errors (sample, variable) at the lead times of the samples."""
    sums = LeadTimeSums((RMSE, MAE), (72.0, 24.0), {"t2m": "K", "u10": "m s-1"})
    for hours, errors in batches:
        lead, sample = sums.scored(torch.tensor(hours))
        errors = torch.tensor(errors)[sample]
        sums.add(RMSE, lead, errors.square())
        sums.add(MAE, lead, errors.abs())
    return sums


FIRST = ([24.0, 48.0, 72.0], [[1.0, 2.0], [9.0, 9.0], [3.0, 4.0]])
SECOND = ([24.0, 24.0 + 1e-6], [[3.0, 2.0], [-5.0, 0.0]])


def test_scores_are_reduced_means_by_lead_time_variable_and_metric():
    scores = list(filled(FIRST, SECOND).scores())
    assert [(s.lead_time_h, s.variable, s.metric.name, s.unit) for s in scores[:3]] == [
        (24.0, "t2m", "rmse", "K"), (24.0, "t2m", "mae", "K"), (24.0, "u10", "rmse", "m s-1"),
    ]  # fmt: skip
    values = {score.key: score.value for score in scores}
    assert values["t2m", "rmse", 24.0] == pytest.approx(math.sqrt((1 + 9 + 25) / 3))
    assert values["t2m", "mae", 24.0] == pytest.approx(3.0)
    assert values["u10", "mae", 72.0] == pytest.approx(4.0)
    assert len(scores) == 8  # 48 h is not scored


def test_lead_times_that_were_not_met_have_no_score():
    assert {score.lead_time_h for score in filled(SECOND).scores()} == {24.0}
    assert list(filled().scores()) == []


def test_sums_of_ranks_add_up():
    whole, rank, other = filled(FIRST, SECOND), filled(FIRST), filled(SECOND)
    for total, more in zip(rank.sums(), other.sums(), strict=True):
        assert total.dtype == torch.float64
        total += more
    assert [score.value for score in rank.scores()] == pytest.approx([score.value for score in whole.scores()])


def test_a_metric_may_have_a_unit_of_its_own():
    sums = LeadTimeSums((PURITY,), (1.0,), {"height": "m"})
    sums.add(PURITY, torch.tensor([0]), torch.tensor([[0.5]]))
    assert next(sums.scores()).unit == "1"


def table(metric, value, other):
    return score_table([Score("u", metric, value, "1")], {"shift": [Score("u", metric, other, "1")]})


def test_skill_knows_the_direction_of_the_metric():
    assert mean_skill(table(RMSE, 1.0, 4.0)) == pytest.approx({"skill_against_shift": 0.75})
    assert mean_skill(table(PURITY, 0.9, 0.2)) == pytest.approx({"skill_against_shift": 0.875})
    assert mean_skill(table(PURITY, 0.2, 0.9))["skill_against_shift"] < 0
    assert mean_skill(table(LIKELIHOOD, -1.0, -2.0)) == {}
    assert mean_skill(table(RMSE, 1.0, 0.0)) == {}
    assert mean_skill([]) == {}


def test_skill_is_of_the_first_metric_alone():
    rows = [*table(PURITY, 0.9, 0.2), *table(RMSE, 1e9, 1.0)]
    assert mean_skill(rows) == pytest.approx({"skill_against_shift": 0.875})


def test_means_over_seeds():
    seeds = [[Score("u", RMSE, value, "1", 24.0)] for value in (1.0, 2.0, 6.0)]
    (mean,) = mean_scores(seeds)
    assert (mean.value, mean.metric, mean.lead_time_h) == (3.0, RMSE, 24.0)


def test_the_interval_of_a_mean_is_that_of_the_means_of_its_groups():
    """For groups of equal size the jackknife gives Student's interval of their means."""
    values = torch.randn(24, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).square()
    sums = LeadTimeSums((MAE,), (24.0,), {"t2m": "K"})
    sums.add(MAE, torch.zeros(24, dtype=torch.long), values, group=torch.arange(24) % 8 + 1000)
    (score,) = sums.scores()
    means = values.reshape(3, 8).mean(0).numpy()
    reach = scipy.stats.t.ppf(0.975, 7) * means.std(ddof=1) / math.sqrt(8)
    assert score.interval == pytest.approx((means.mean() - reach, means.mean() + reach))
    assert score.cases == 24


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Dependent cases in 12 groups, root mean square: about 95 of 100 intervals hold the true one."""
    draw, held = torch.Generator().manual_seed(1), 0
    for _ in range(400):
        of_group = torch.randn(12, generator=draw, dtype=torch.float64).repeat_interleave(10)
        errors = 3 + of_group + torch.randn(120, generator=draw, dtype=torch.float64)
        sums = LeadTimeSums((RMSE,), (24.0,), {"t2m": "K"})
        groups = torch.arange(12).repeat_interleave(10)
        sums.add(RMSE, torch.zeros(120, dtype=torch.long), errors.square()[:, None], group=groups)
        low, high = next(sums.scores()).interval
        held += low <= math.sqrt(11) <= high
    assert 0.9 <= held / 400 <= 0.98


def test_few_groups_and_groups_that_are_not_known_have_no_interval():
    for groups in (None, torch.tensor([0, 1, 2, 2, 2])):
        sums = LeadTimeSums((MAE,), (24.0,), {"t2m": "K"})
        sums.add(MAE, torch.zeros(5, dtype=torch.long), torch.rand(5, 1), group=groups)
        (score,) = sums.scores()
        assert score.interval is None
        assert "interval" not in score.to_row()
