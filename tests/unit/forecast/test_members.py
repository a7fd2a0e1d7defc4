"""Members that differ by noise, and the score that they are trained by: against definitions and closed forms."""

import math

import pytest
import torch

from sciml.forecast.members import MemberNoise, balanced_crps, drawn_noise, fair_crps, independent_members


def of_normal(mean, std, truth):
    """The closed form of Gneiting et al. (2005) for a normal distribution."""
    z = (truth - mean) / std
    density, below = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(z / math.sqrt(2)))
    return std * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))


def by_pairs(errors, fairness):
    """The formula of Lang et al. (2024), member by member."""
    count = errors.shape[1]
    share = (1 - fairness) / count
    total = torch.zeros_like(errors[:, 0])
    for j in range(count):
        for k in range(count):
            if j != k:
                apart = (errors[:, j] - errors[:, k]).abs()
                total += errors[:, j].abs() + errors[:, k].abs() - (1 - share) * apart
    return total / (2 * count * (count - 1))


@pytest.mark.parametrize("fairness", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("count", [2, 3, 6, 7, 11])
def test_it_is_the_mean_over_pairs(count, fairness):
    errors = torch.randn(3, count, 2, 4, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    torch.testing.assert_close(fair_crps(errors, fairness), by_pairs(errors, fairness), rtol=1e-13, atol=1e-14)


def test_without_fairness_it_is_the_integral_of_the_ensembles_own_distribution():
    errors = torch.randn(1, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    below = (errors[0][:, None] <= x).double().mean(0)
    integral = torch.trapezoid((below - (x >= 0).double()).square(), x)
    assert fair_crps(errors, 0.0).item() == pytest.approx(integral.item(), abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_fair_score_of_few_members_is_on_average_that_of_their_normal_distribution(count):
    mean, std, truth, cases = 0.4, 1.7, -0.9, 200_000
    closed = of_normal(mean, std, truth)
    drawn = torch.randn(cases, count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores = fair_crps(mean + std * drawn - truth)
    assert scores.mean().item() == pytest.approx(closed, abs=4 * scores.std().item() / cases**0.5)
    assert fair_crps(mean + std * drawn - truth, 0.0).mean().item() > closed + 0.02


@pytest.mark.parametrize("std", [1.7, 6.0])
@pytest.mark.parametrize("count", [2, 3, 9])
def test_the_score_of_noise_that_adds_up_to_zero_is_that_of_the_distribution_too(count, std):
    """Else two members four times too wide would have the score of a far better forecast."""
    mean, truth, cases = 0.4, -0.9, 200_000
    drawn = torch.randn(cases, count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    balanced = mean + std * (drawn - drawn.mean(1, keepdim=True))
    scores = balanced_crps(balanced - truth)
    assert scores.mean().item() == pytest.approx(of_normal(mean, std, truth), abs=4 * scores.std().item() / cases**0.5)
    assert fair_crps(balanced - truth).mean().item() < 0.98 * of_normal(mean, std, truth)


def test_one_member_has_its_absolute_error():
    errors = torch.tensor([[[-2.0, 3.0]]])
    assert fair_crps(errors).tolist() == balanced_crps(errors).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("count", [3, 8])
def test_its_gradient_is_that_of_differences(count):
    errors = torch.randn(2, count, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda e: fair_crps(e, 0.95), errors.requires_grad_())


def test_noise_depends_on_the_member_and_the_step_alone():
    names = independent_members(5, 4)
    together = drawn_noise(names, 1, 8)
    assert torch.equal(together[2:], drawn_noise(names[2:], 1, 8))
    assert torch.equal(together[:2], drawn_noise(independent_members(5, 2), 1, 8))
    assert not torch.equal(together, drawn_noise(names, 2, 8))
    assert len({tuple(row.tolist()) for row in together}) == 4
    many = drawn_noise(independent_members(6, 2000), 0, 8)
    assert many.mean().abs() < 0.03
    assert many.std().item() == pytest.approx(1, abs=0.03)


def test_noise_of_an_ensemble_adds_up_to_zero_and_members_differ_as_independent_ones_do():
    def ensemble(seed: int) -> torch.Tensor:
        return drawn_noise([MemberNoise(seed, number, 5) for number in range(5)], 3, 400)

    noise = ensemble(1)
    assert noise.sum(0).abs().max() < 1e-5
    assert torch.equal(noise[3:4], drawn_noise([MemberNoise(1, 3, 5)], 3, 400))
    independent = drawn_noise(independent_members(1, 5), 3, 400)
    torch.testing.assert_close(noise[0] - noise[1], independent[0] - independent[1])
    assert not torch.allclose(noise, ensemble(2))
