"""Whether a long forecast keeps mean and variance, against numbers computed by hand."""

import numpy as np
import pytest

from domains.climate.data.schema import ClimateSchema
from domains.climate.forecast.drift import drift_of

SCHEMA = ClimateSchema(("t2m", "z500", "sst"), (), (60.0, 0.0, -60.0), (0.0, 90.0, 180.0, 270.0), 12.0)


def test_means_variances_and_eddies_are_compared_channel_by_channel():
    rng = np.random.default_rng(0)
    normal = rng.normal(280, 5, (40, 3, 3, 4))
    normal[:, 2, 1] = np.nan
    area = np.diff(np.sin(np.deg2rad([-90, -30, 30, 90])))[:, None]
    area /= area.mean()
    mean = (normal[:, 0] * area).mean()
    variance = ((normal[:, 0] - mean) ** 2 * area).mean()
    forecast = normal.copy()
    forecast[:, 0] = mean + 3 * (normal[:, 0] - mean) + 7
    zonal = normal[:, 1].mean(-1, keepdims=True)
    forecast[:, 1] = zonal + 0.5 * (normal[:, 1] - zonal)
    t2m, z500 = drift_of(forecast, normal, SCHEMA)
    assert (t2m.channel, z500.channel) == ("t2m", "z500")
    assert t2m.mean == pytest.approx(7 / variance**0.5)
    assert t2m.variance == pytest.approx(9)
    assert t2m.eddies == pytest.approx(9)
    assert z500.mean == pytest.approx(0, abs=1e-9)
    assert z500.eddies == pytest.approx(0.25)
    assert 0.25 < z500.variance < 1
