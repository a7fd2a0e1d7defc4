"""Maps show the right place, and every picture draws, whatever the scores and the grid are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domains.climate.data.schema import ClimateSchema
from domains.climate.data.variables import channel_unit
from domains.climate.figures import maps, ranks
from domains.climate.figures.maps import Shading, degrees
from domains.climate.figures.projection import Canvas, EqualEarth, Orthographic, PlateCarree, covers_globe, world_map
from domains.climate.figures.report import climate_figures
from domains.climate.figures.shown import Shown, shown
from domains.climate.figures.spectra import zonal_panels
from domains.climate.forecast.baselines import BASELINES
from domains.climate.forecast.example import WeatherExample, choose
from domains.climate.forecast.metrics import ACC, RMSE
from domains.climate.forecast.power import POWER
from domains.climate.forecast.ranks import RANKS
from sciml.domain.protocol import RunResult
from sciml.report.scores import Scores

CHANNELS = ("z500", "t850", "t2m", "u10")
PREDICTORS = ("persistence", "climatology", "weekly_climatology", "ridge")


def schema_of(latitude, longitude) -> ClimateSchema:
    return ClimateSchema(CHANNELS, (), tuple(latitude), tuple(longitude), 12.0, "Synthetic waves, no weather")


GRIDS = {
    "between the poles": schema_of(np.linspace(87.1875, -87.1875, 32), np.arange(0, 360, 5.625)),
    "with the poles": schema_of(np.linspace(90, -90, 33), np.arange(0, 360, 5.625)),
    "from 2.8 degrees east": schema_of(np.linspace(87.1875, -87.1875, 32), np.arange(2.8125, 360, 5.625)),
}
GLOBAL = GRIDS["between the poles"]
REGION = schema_of(np.linspace(70, 30, 21), np.arange(5, 45, 2.0))


def smooth(latitude, longitude) -> np.ndarray:
    """A function on the sphere that is smooth at the poles and across every meridian."""
    phi, lam = np.deg2rad(latitude), np.deg2rad(longitude)
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    return x + 0.5 * y * z + 0.8 * z**2 - 0.6 * x * y


def on_grid(schema: ClimateSchema) -> np.ndarray:
    return smooth(np.array(schema.latitude)[:, None], np.array(schema.longitude)[None])


def example_of(schema: ClimateSchema, num_leads: int = 4, with_truth: bool = True, with_land: bool = True) -> dict:
    rng = np.random.default_rng(1)
    scale = np.array([2000.0, 15.0, 20.0, 9.0])[:, None, None]
    offset = np.array([54_000.0, 280.0, 285.0, 0.0])[:, None, None]
    waves = [np.roll(on_grid(schema), 2 * step, axis=1) for step in range(num_leads + 1)]
    fields = offset + scale * np.stack(waves)[:, None]
    values = {
        "init_time": np.array([412_010.0]),  # 2017-01-01 02:00 UTC
        "lead_times": 24.0 * np.arange(1, num_leads + 1),
        "forecast": fields[1:] + 0.1 * scale * rng.standard_normal(fields[1:].shape),
        "initial": fields[0],
    }
    if with_truth:
        values["truth"] = fields[1:]
    if with_land:
        values["land_sea_mask"] = (on_grid(schema) > 0.3).astype(float)
    return {name: value.astype(np.float32 if value.ndim > 1 else np.float64) for name, value in values.items()}


def scores_of(leads=(24.0, 72.0, 96.0), predictors=PREDICTORS) -> list[dict]:
    return [
        {
            "variable": channel,
            "lead_time_h": lead,
            **metric.to_row(),
            "value": (1 + lead / 100) * size,
            "unit": channel_unit(channel) if metric.unit is None else metric.unit,
            "baseline": {name: (1.2 + 0.1 * i) * size for i, name in enumerate(predictors)},
        }
        for lead in leads
        for channel in CHANNELS
        for metric, size in ((RMSE, 1.0), (ACC, 0.2))
    ]


def curves_of(leads=(24.0, 72.0, 96.0), channels=CHANNELS) -> list[dict]:
    """Rows of scores that have curves: spectra and rank histograms."""
    waves = np.arange(1.0, 17)
    rows = []
    for lead in leads:
        for channel in channels:
            spectrum = {"wavenumber": waves, "forecast": waves**-3 * (1 - lead / 200), "truth": waves**-3}
            ranks = {"rank": np.arange(5.0), "share": np.full(5, 0.2)}
            for metric, curve in ((POWER, spectrum), (RANKS, ranks)):
                lists = {name: values.tolist() for name, values in curve.items()}
                rows.append({"variable": channel, "lead_time_h": lead, **metric.to_row(), "value": 1.0, "curve": lists})
    return rows


def result_of(schema: ClimateSchema, example: dict, scores: list[dict]) -> RunResult:
    return RunResult(
        Path("runs/climate/test"), {"domain": "climate"}, schema.to_dict(), scores, [], example, BASELINES, 72.0
    )


class TestProjections:
    @pytest.mark.parametrize("projection", [EqualEarth(30.0), Orthographic(40.0, -100.0)], ids=repr)
    def test_inverse_undoes_forward(self, projection):
        rng = np.random.default_rng(0)
        latitude, longitude = rng.uniform(-85, 85, 500), rng.uniform(-180, 180, 500)
        x, y = projection.forward(latitude, longitude)
        seen = np.isfinite(x) & (np.hypot(x, y) < 0.99 if isinstance(projection, Orthographic) else True)
        found_lat, found_lon = projection.inverse(x[seen], y[seen])
        np.testing.assert_allclose(found_lat, latitude[seen], atol=2e-3)
        np.testing.assert_allclose((found_lon - longitude[seen] + 180) % 360 - 180, 0, atol=2e-3)

    def test_equal_earth_keeps_areas(self):
        outline = EqualEarth().outline()
        x, y = outline.T
        area = 0.5 * abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
        assert area == pytest.approx(4 * np.pi, rel=1e-3)
        edges = EqualEarth().forward(np.array([0.0, 30.0]), np.array([0.0, 0.0]))[1]
        strip = np.linspace(*edges, 2001)
        latitude = EqualEarth().inverse(np.zeros_like(strip), strip)[0]
        right = EqualEarth().forward(latitude, np.full_like(latitude, 179.999999))[0]
        assert (2 * right).mean() * np.ptp(strip) == pytest.approx(2 * np.pi * 0.5, rel=1e-3)  # sin(30 degrees) = 1/2

    def test_the_far_side_is_out_of_sight(self):
        x, _ = Orthographic(0.0, 0.0).forward(np.array([0.0, 0.0]), np.array([10.0, 170.0]))
        assert np.isfinite(x[0])
        assert np.isnan(x[1])


class TestCanvas:
    @pytest.mark.parametrize("schema", GRIDS.values(), ids=GRIDS.keys())
    @pytest.mark.parametrize(
        "projection", [EqualEarth(), EqualEarth(180.0), Orthographic(90.0, 0.0), Orthographic(-60.0, 179.0)], ids=repr
    )
    def test_every_pixel_shows_its_place_poles_and_seam_included(self, schema, projection):
        canvas = Canvas(schema, projection, height=120)
        latitude, longitude = projection.inverse(*np.meshgrid(canvas.x, canvas.y))
        assert np.abs(canvas.image(on_grid(schema)) - smooth(latitude, longitude)).max() < 0.006

    def test_no_overshoot(self):
        field = (on_grid(GLOBAL) > 0).astype(float)
        image = Canvas(GLOBAL, EqualEarth(), height=80).image(field)
        assert image.min() == 0
        assert image.max() == 1

    def test_a_region_is_drawn_as_it_lies(self):
        assert not covers_globe(REGION)
        assert covers_globe(GLOBAL)
        projection = world_map(REGION)
        assert projection == PlateCarree(30.0, 70.0, 5.0, 43.0)
        canvas = Canvas(REGION, projection, height=90)
        latitude, longitude = projection.inverse(*np.meshgrid(canvas.x, canvas.y))
        inner = (slice(8, -8), slice(8, -8))
        np.testing.assert_allclose(canvas.image(on_grid(REGION))[inner], smooth(latitude, longitude)[inner], atol=2e-3)


class TestShading:
    def test_winds_and_errors_are_centered_at_zero(self):
        values = np.linspace(-3, 9, 1000)
        for shading in (Shading.of_values("u10", values), Shading.of_errors(values)):
            assert shading.low == -shading.high
        assert Shading.of_values("t2m", values).low < -2.9

    def test_a_constant_field_has_a_scale(self):
        shading = Shading.of_values("t2m", np.full(10, 280.0))
        assert shading.low < 280 < shading.high
        assert Shading.of_errors(np.zeros(10)).high > 0


class TestExample:
    def test_valid_time_reads_as_in_forecasts(self):
        example = WeatherExample.of(GLOBAL, example_of(GLOBAL))
        assert example.valid_text(72.0) == "from 2017-01-01 02:00, valid 2017-01-04 02:00 UTC (72 h)"
        assert example.nearest_lead(70.0) == 2
        assert example.nearest_lead(None) == 3

    def test_names(self):
        assert shown("t2m") == Shown("2 m temperature", "K", 1.0, "K")
        height = shown("z500")
        assert (height.title, height.unit) == ("Geopotential height at 500 hPa", "dam")
        assert height.of(np.array(5500 * 9.80665)) == pytest.approx(550)
        assert height.error_text(98.0665) == "1.00 dam (98.1 m² s⁻²)"
        assert shown("msl").of(np.array(101325.0)) == pytest.approx(1013.25)
        assert [degrees(angle, "E", "W") for angle in (-120, 0, 30, 180)] == ["120°W", "0°", "30°E", "180°"]
        assert choose(CHANNELS, ("t2m", "msl"), 3) == ["t2m", "z500", "t850"]

    def test_without_a_forecast_there_is_none(self):
        assert WeatherExample.of(GLOBAL, {}) is None


def drawn(result: RunResult, folder: Path) -> dict[str, Path]:
    return {figure.name: figure.render(folder / figure.name) for figure in climate_figures(result)}


def test_all_figures_draw(tmp_path):
    files = drawn(result_of(GLOBAL, example_of(GLOBAL), [*scores_of(), *curves_of()]), tmp_path)
    assert set(files) == {
        "skill", "skill_by_lead_time", "forecast_globe", "forecast_maps", "forecast_animation", "spectra",
        "rank_histogram",
    }  # fmt: skip
    for path in files.values():
        with Image.open(path) as image:
            assert min(image.size) > 300
            pixels = np.asarray(image.convert("RGB"))
            # Paper on all four edges: nothing is cut off.
            for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
                assert edge.min() > 250, path.name
            assert len(image.convert("RGB").quantize(64).getcolors()) > 20, path.name
    with Image.open(files["forecast_animation"]) as movie:
        assert movie.n_frames == 5  # the initial state and four lead times
        assert movie.info["loop"] == 0


@pytest.mark.parametrize("schema", [REGION, GRIDS["with the poles"]], ids=["region", "with the poles"])
def test_other_grids_and_missing_parts_draw_too(schema, tmp_path):
    example = example_of(schema, num_leads=1, with_truth=False, with_land=False)
    files = drawn(result_of(schema, example, scores_of(leads=(72.0,), predictors=("persistence",))), tmp_path)
    assert set(files) >= {"skill", "forecast_globe", "forecast_maps"}
    assert "forecast_animation" not in files
    assert "skill_by_lead_time" not in files
    assert not {"spectra", "rank_histogram"} & set(files)  # a region has no waves, and one forecast no ranks


BAND = schema_of(np.linspace(90, 50, 11), np.arange(0, 360, 8.0))


@pytest.mark.parametrize(("schema", "with_truth"), [(GLOBAL, False), (REGION, True), (BAND, False), (BAND, True)])
def test_headings_lie_within_globes_and_maps_fill_them(schema, with_truth, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(maps, "save_png", lambda figure, path, dpi: figures.append(figure))
    example = WeatherExample.of(schema, example_of(schema, num_leads=1, with_truth=with_truth))
    maps.draw_forecast_globes(example, None, tmp_path / "globes")
    if not with_truth:
        one = replace(example, schema=replace(schema, channels=("t850",)))
        maps.draw_forecast_maps(one, None, tmp_path / "maps")
    for figure in figures:
        figure.draw_without_rendering()
        width, height = figure.bbox.size
        heading = figure.texts[-1].get_window_extent()
        assert heading.x0 > 0
        assert heading.x1 < width
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        assert heading.y0 - max(box.y1 for box in boxes) < 0.12 * height  # no gap below it
        assert all(box.x0 >= 0 and box.x1 <= width for box in boxes)


def test_all_points_of_rank_histograms_are_seen(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(ranks, "save_png", lambda figure, path: figures.append(figure))
    rows = curves_of()
    high = next(row for row in rows if row["variable"] == "t2m" and "rank" in row["curve"])
    high["curve"]["share"] = [0.7, 0.1, 0.1, 0.05, 0.05]
    ranks.draw_rank_histograms(Scores(rows, headline_lead_h=72.0), "", tmp_path / "ranks")
    assert all(axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 0.7 for axes in figures[0].axes)


def test_spectra_are_those_of_the_scores_up_to_the_lead_time_of_headlines():
    panels = zonal_panels(Scores([*scores_of(), *curves_of()], headline_lead_h=72.0))
    assert list(panels) == ["z500", "t850", "t2m"]
    assert [spectrum.label for spectrum in panels["t2m"].spectra] == ["forecast, 24 h", "forecast, 72 h", "truth, 72 h"]
    assert panels["t2m"].spectra[1].power == pytest.approx(0.64 * panels["t2m"].spectra[2].power)
    assert zonal_panels(Scores(scores_of())) == {}


def test_no_scores_no_skill_figures(tmp_path):
    names = {figure.name for figure in climate_figures(result_of(GLOBAL, {}, []))}
    assert names == set()
