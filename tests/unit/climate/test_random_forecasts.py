"""Forecasts by noise: without it a random model is the deterministic one; it is trained by the score of its members."""

from dataclasses import replace

import pytest
import torch

from domains.climate.data.batch import FieldSample, collate
from domains.climate.data.schema import ClimateSchema, ClimateStatistics
from domains.climate.forecast.ensemble import EnsembleTask
from domains.climate.model.field_model import ClimateFieldModel
from domains.climate.model.forecaster import ClimateViT
from domains.climate.model.loss import ForecastLoss, LossConfig
from domains.climate.model.task import ClimateTask
from sciml.core.errors import ConfigError
from sciml.forecast.members import MemberNoise, fair_crps
from sciml.models.unet import UNetConfig
from sciml.models.uvit import UViTConfig
from sciml.models.vit import ViTConfig
from sciml.nn.initialization import initialize

CHANNELS = ("z500", "t850", "t2m")
SCHEMA = ClimateSchema(CHANNELS, (), (67.5, 22.5, -22.5, -67.5), tuple(45.0 * n for n in range(8)), 12.0)
STATISTICS = ClimateStatistics(
    mean=torch.tensor([5e4, 280.0, 285.0]), std=torch.tensor([800.0, 10.0, 12.0]),
    lead_hours=torch.tensor([12.0, 24.0]), increment_std=torch.tensor([[300.0, 2.0, 3.0], [500.0, 3.0, 4.0]]),
    statics=torch.empty(0, 4, 8),
)  # fmt: skip
CRPS = LossConfig(loss="crps", train_members=3, noise_dim=4)
SIZES = {"embed_dim": 8, "depth": 1, "num_heads": 2, "patch_size": 2, "condition_dim": 8,
         "condition_on": ("lead_time",), "position_features": ("latitude",)}  # fmt: skip
MODELS = {
    "vit": lambda noise: ClimateViT(
        ViTConfig(**SIZES), CHANNELS, latitude=SCHEMA.latitude, longitude=SCHEMA.longitude, noise_dim=noise
    ),
    "uvit": lambda noise: ClimateFieldModel.from_schema(
        UViTConfig(**SIZES, square=1, conv_width=8), SCHEMA, noise_dim=noise
    ),
    "unet": lambda noise: ClimateFieldModel.from_schema(UNetConfig(widths=(4, 8)), SCHEMA, noise_dim=noise),
}


def task(loss=CRPS, kind=ClimateTask, **options):
    return kind(SCHEMA, STATISTICS, score_lead_times=(24.0,), loss=loss, **options)


def samples(count=2, steps=1):
    generator = torch.Generator().manual_seed(0)
    mean, std = STATISTICS.mean[:, None, None], STATISTICS.std[:, None, None]
    states = mean + std * torch.randn(count, steps + 1, 3, 4, 8, generator=generator)
    return [FieldSample(s[0], 0.0, (12.0,) * steps, s[1:], noise_seed=number) for number, s in enumerate(states)]


def trained(kind, noise, seed=0):
    """A model that is no longer at its start; without noise it has the same weights as with it."""
    model = MODELS[kind](noise)
    for name, parameter in model.named_parameters():
        if "condition.noise" not in name:
            generator = torch.Generator().manual_seed(sum(map(ord, name)) + seed)
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_a_random_model_with_the_weights_of_a_deterministic_one_forecasts_as_it_does(kind):
    torch.manual_seed(0)
    deterministic, random = trained(kind, 0), trained(kind, 4)
    batch = collate(samples(steps=2))
    with torch.no_grad():
        expected = task(LossConfig()).predict(deterministic, batch).values["fields"]
        torch.nn.init.normal_(getattr(random, "net", random).condition.noise.weight)
        members = batch.as_members(3)
        fields = task().predict(random, members).values["fields"].unflatten(0, (2, 3))
        spread = fields.std(1).mean((0, 2, 3))
        assert (spread > 0.002 * STATISTICS.increment_std[0]).all()
        assert torch.equal(task().predict(random, replace(batch, noise=None)).values["fields"], expected)


def test_members_are_those_of_their_seeds_in_any_batch_and_differ_from_step_to_step():
    model = trained("uvit", 4)
    torch.nn.init.normal_(model.net.condition.noise.weight)
    first, second = samples()
    with torch.no_grad():
        both = task().predict(model, collate([first, second]).as_members(2)).values["fields"]
        alone = task().predict(model, collate([second]).as_members(3)).values["fields"]
        torch.testing.assert_close(alone[:2], both[2:], rtol=1e-6, atol=1e-2)
        batch = collate([first])
        later = task().predict(model, replace(batch, steps_taken=1)).values["fields"]
        assert not torch.equal(later, task().predict(model, batch).values["fields"])


def test_an_ensembles_forecast_is_the_mean_of_its_random_members():
    model = trained("uvit", 4)
    torch.nn.init.normal_(model.net.condition.noise.weight)
    ensemble = task(kind=EnsembleTask, members=4, perturbation=0.0, seed=0)
    batch = collate(samples(steps=2))
    with torch.no_grad():
        prediction = ensemble.predict(model, batch)
        states = batch.state[:, None].expand(-1, 4, -1, -1, -1)
        members = [task().predict(model, member).values["fields"] for member in batch.members_on(states)]
        calm = task().predict(model, replace(batch, noise=None)).values["fields"]
        alone = [task().predict(model, replace(batch, noise=(MemberNoise(n), MemberNoise(n)))) for n in range(4)]
    torch.testing.assert_close(prediction.values["ensemble"], torch.stack(members, 1), rtol=1e-6, atol=1e-2)
    assert all(not torch.equal(one, calm) for one in members)
    # What noise does in proportion cancels in the mean of a few members.
    errors = prediction.values["fields"] - calm, torch.stack([one.values["fields"] for one in alone]).mean(0) - calm
    scale = STATISTICS.increment_std[0][:, None, None]
    assert (errors[0] / scale).square().mean() < 0.3 * (errors[1] / scale).square().mean()
    assert torch.equal(prediction.values["fields"], prediction.values["ensemble"].mean(1))


def test_perturbed_starts_are_those_of_their_samples_in_any_batch():
    first, second = samples()
    zero = torch.nn.Module()
    zero.forward = lambda given, *_, **__: torch.zeros_like(given)  # so that the forecast is the start

    def starts(chosen, members):
        ensemble = task(LossConfig(), kind=EnsembleTask, members=members, perturbation=0.1, seed=0)
        return ensemble.predict(zero, collate(chosen)).values["ensemble"]

    both, alone = starts([first, second], 4), starts([second], 6)
    assert torch.equal(alone[0, :4], both[1])
    noise = (both - both[:, :1])[:, 1:].flatten(0, 1) / STATISTICS.std[:, None, None]
    assert noise.std().item() == pytest.approx(0.1, rel=0.1)
    similar = torch.corrcoef(noise.flatten(1)) - torch.eye(len(noise))
    assert similar.abs().max() < 0.5  # no two members, nor two samples, are alike


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_the_score_of_the_members_at_every_step(weight):
    config = replace(CRPS, spectral_weight=weight)
    model, batch = trained("uvit", 4), collate(samples(steps=2))
    torch.nn.init.normal_(model.net.condition.noise.weight)
    judge, losses = task(config), []
    area = judge.area
    with torch.no_grad():
        step = batch.as_members(3)
        for number in range(2):
            fields = judge.predict(model, step).values["fields"]
            errors = ((fields - step.targets[:, 0]) / STATISTICS.increment_std[0][:, None, None]).unflatten(0, (2, 3))
            total = (fair_crps(errors, 0.95) * area).mean()
            waves = torch.fft.rfft(errors, norm="ortho")
            parts = fair_crps(waves.real, 0.95) + fair_crps(waves.imag, 0.95)
            losses.append(total + weight * (parts.sum(-1) / 8 * area[:, 0]).mean())
            step = step.advance(fields) if number == 0 else step
        found = judge.loss(model, batch)
    assert found.weight == 2.0
    torch.testing.assert_close(found.loss, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def test_noise_is_there_from_the_start_and_grows_with_the_root_of_the_interval():
    model = trained("uvit", 4)
    initialize(model, seed=0)
    assert model.net.condition.noise.weight.std() > 0.1
    batch = collate(samples()).as_members(3)
    twice = replace(batch, intervals=2 * batch.intervals)
    torch.testing.assert_close(task()._noise(twice), 2**0.5 * task()._noise(batch))
    assert task()._noise(replace(batch, intervals=0 * batch.intervals + 24)).std() == pytest.approx(1, abs=0.3)


def test_the_mean_is_learned_first_and_then_members_are():
    """By the squared error of the deterministic model, in which every parameter has a gradient all the same."""
    random, deterministic = trained("uvit", 4), trained("uvit", 0)
    torch.nn.init.normal_(random.net.condition.noise.weight)
    judge, batch = task(replace(CRPS, mean_first=0.4)), collate(samples(steps=2))
    judge.at_step(3, 10)
    found = judge.loss(random, batch)
    found.loss.backward()
    expected = task(LossConfig()).loss(deterministic, batch)
    expected.loss.backward()
    torch.testing.assert_close(found.loss, expected.loss)
    assert found.weight == expected.weight
    gradients = {name: parameter.grad for name, parameter in deterministic.named_parameters()}
    for name, parameter in random.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients.get(name, torch.zeros_like(parameter)))
    members = task().loss(random, batch).loss
    assert members != found.loss
    for step in (4, 9, None):  # and outside of the training, so that losses on validation data can be compared
        judge.at_step(3, 10)
        judge.at_step(step, 10)
        assert judge.phase == 3
        torch.testing.assert_close(judge.loss(random, batch).loss, members)


def test_unknown_places_count_for_nothing_in_fields_and_waves():
    area = torch.ones(4, 1)
    judge = ForecastLoss(replace(CRPS, spectral_weight=1.0), SCHEMA, area)
    errors = torch.randn(6, 3, 4, 8, generator=torch.Generator().manual_seed(4))
    known = torch.ones(6, 3, 4, 8, dtype=torch.bool)
    known[..., 5] = False
    assert torch.equal(judge(errors, known), judge(torch.where(known, errors, torch.nan), known))
    assert judge(errors, known) != judge(errors)


@pytest.mark.parametrize(
    ("keys", "weights"),
    [
        ({}, (1, 1, 1)),
        ({"channel_weights": {"z500": 2.0, "t": 0.5}}, (2, 0.5, 1)),
        ({"level_weights": "pressure"}, (500 / 675, 850 / 675, 1)),
        ({"channel_weights": {"t": 3.0, "t850": 0.0}}, (1, 0, 1)),
    ],
)  # fmt: skip
def test_channels_weigh_as_they_are_told(keys, weights):
    judge = ForecastLoss(LossConfig(**keys), SCHEMA, torch.ones(4, 1))
    errors = torch.zeros(1, 3, 4, 8)
    for channel, weight in enumerate(weights):
        alone = errors.clone()
        alone[:, channel] = 2.0
        expected = 4 * weight / sum(weights)
        assert judge(alone).item() == pytest.approx(expected, rel=1e-6)
        assert judge(alone, torch.ones_like(alone, dtype=torch.bool)).item() == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match=r"task.train_members: one member has no spread"):
        LossConfig(loss="crps", train_members=1)
    with pytest.raises(ConfigError, match=r"task.channel_weights: the data have no 'z50'.*z500"):
        ForecastLoss(LossConfig(channel_weights={"z50": 1.0}), SCHEMA, torch.ones(4, 1))
    with pytest.raises(ConfigError, match="no channel weighs anything"):
        ForecastLoss(LossConfig(channel_weights={"z": 0.0, "t": 0.0, "t2m": 0.0}), SCHEMA, torch.ones(4, 1))


def test_a_grid_of_one_patch_is_refused():
    config = UViTConfig(**{**SIZES, "patch_size": 8}, square=1, conv_width=8)
    with pytest.raises(ConfigError, match=r"model.patch_size: a grid of 8x4 cells is a single patch of 8"):
        ClimateFieldModel.from_schema(config, SCHEMA)
