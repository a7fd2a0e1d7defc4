import numpy as np
import pytest
import torch

from domains.climate.data.forcings import FORCINGS, forcing_fields, forcing_names, sun_position, toa_solar_radiation
from domains.climate.data.regrid import LatLonGrid
from domains.climate.data.schema import cell_area_weights

GRID = LatLonGrid.parse("48x24")


def hours(*dates: str) -> torch.Tensor:
    return torch.tensor([np.datetime64(date, "m").astype(float) / 60 for date in dates], dtype=torch.float64)


def test_the_global_mean_over_a_year_is_a_quarter_of_the_solar_constant():
    year = np.arange("2021-01-01", "2022-01-01", np.timedelta64(7, "h"), dtype="datetime64[h]").astype(float)
    radiation = toa_solar_radiation(torch.tensor(year), GRID.latitude, GRID.longitude).numpy()
    mean = (radiation.mean((0, 2)) * cell_area_weights(GRID.latitude)).mean()
    # 1360.8 / 4 = 340.2 W/m2, times the mean of 1/distance^2 = 1.00014
    assert mean == pytest.approx(340.25, abs=0.2)


def test_it_is_dark_at_night_and_in_the_polar_winter():
    midnight = toa_solar_radiation(hours("2021-03-20T00:00"), [0.0, 45.0, -45.0], [0.0])
    assert (midnight == 0).all()
    winter = toa_solar_radiation(hours(*(f"2021-12-21T{h:02d}:00" for h in range(24))), [80.0], GRID.longitude)
    assert (winter == 0).all()
    summer = toa_solar_radiation(hours(*(f"2021-06-21T{h:02d}:00" for h in range(24))), [80.0], GRID.longitude)
    # the midnight sun stands 13.4 degrees high: sin(13.4) * 1360.8 / 1.016^2 = 305 W/m2
    assert (summer > 300).all()


def test_hemispheres_are_alike_at_the_equinox():
    # 2020-03-20 03:50 UTC, the astronomical equinox
    radiation = toa_solar_radiation(hours("2020-03-20T03:50"), GRID.latitude, GRID.longitude)
    torch.testing.assert_close(radiation, radiation.flip(1), atol=0.1, rtol=0)


@pytest.mark.parametrize(("date", "declination"), [("2020-06-20T21:44", 23.436), ("2020-12-21T10:02", -23.436)])
def test_declination_at_the_solstices(date, declination):
    assert np.rad2deg(sun_position(hours(date))[0].item()) == pytest.approx(declination, abs=0.01)


@pytest.mark.parametrize(("date", "minutes"), [("2020-11-03T12:00", 16.4), ("2020-02-11T12:00", -14.2)])
def test_equation_of_time_at_its_extremes(date, minutes):
    angle = np.rad2deg(sun_position(hours(date))[1].item())
    assert ((angle + 180) % 360 - 180) * 4 == pytest.approx(minutes, abs=0.2)


def test_distance_at_perihelion_and_aphelion():
    distance = sun_position(hours("2020-01-05T07:48", "2020-07-04T11:35"))[2]
    np.testing.assert_allclose(distance, [0.98324, 1.01669], atol=1e-4)


def test_fields_are_of_order_one_and_named():
    time = hours("2021-01-01T06:00", "2021-07-01T18:00")
    for name, fields in FORCINGS.items():
        values = forcing_fields(name, time, time + 72, GRID.latitude, GRID.longitude)
        assert values.shape == (2, len(fields), 24, 48)
        assert values.dtype == torch.float32
        assert values.abs().max() < 4
    assert forcing_names(["time_of_year", "time_of_day"]) == (
        "sin_year",
        "cos_year",
        "sin_local_time",
        "cos_local_time",
    )


def test_local_time_turns_with_longitude():
    at_greenwich = forcing_fields(
        "time_of_day", hours("2021-01-01T18:00"), hours("2021-01-01T18:00"), [0.0], [0.0, 90.0]
    )
    # 18:00 UTC is midnight at 90 degrees east: sine 0, cosine 1
    np.testing.assert_allclose(at_greenwich[0, :, 0, 1], [0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(at_greenwich[0, :, 0, 0], [-1.0, 0.0], atol=1e-6)
