"""The pictures of a climate report."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from domains.climate.data.schema import ClimateSchema
from domains.climate.figures import animation, maps, skill
from domains.climate.figures.ranks import draw_rank_histograms
from domains.climate.figures.spectra import draw_zonal_spectra, zonal_panels
from domains.climate.figures.tracks import draw_tracks, tracks_in_words
from domains.climate.forecast.example import WeatherExample
from domains.climate.forecast.metrics import RMSE
from domains.climate.forecast.ranks import RANKS
from domains.climate.forecast.tracks import ComparedTracks
from sciml.domain.protocol import NamedFigure, RunResult
from sciml.report.scores import Scores
from sciml.report.spectra import power_in_words

MIN_FRAMES = 3


def climate_figures(result: RunResult) -> Iterator[NamedFigure]:
    """Yields every picture that the scores and the example forecast of a run allow, the most telling first.

    ``result.example`` holds arrays: ``init_time`` (hours since 1970), ``lead_times`` (hours), ``forecast``
    (lead, channel, latitude, longitude), ``initial`` (channel, latitude, longitude) and, where known, ``truth``
    (as ``forecast``), ``land_sea_mask`` and ``frame`` (latitude, longitude) and ``std`` (channel) of the training.
    """
    schema = ClimateSchema.from_dict(result.schema)
    example = WeatherExample.of(schema, result.example)
    scores = Scores.of(result)
    yield from _skill_figures(scores, schema.title)
    yield from _curve_figures(scores, schema.title)
    if example is not None:
        yield from _forecast_figures(example, scores.main_lead_time)


def _skill_figures(scores: Scores, source: str) -> Iterator[NamedFigure]:
    lead = scores.main_lead_time
    if scores.predictors and lead in scores.lead_times(RMSE):
        yield NamedFigure(
            "skill",
            "Beside the baselines",
            "Area-weighted RMSE over the test period, in units of climatology's error. A bar that ends left of a "
            "mark beats that baseline.",
            partial(skill.draw_skill_beside_baselines, scores, lead, source),
        )
    if len(scores.lead_times(RMSE)) > 1:
        yield NamedFigure(
            "skill_by_lead_time",
            "Skill against lead time",
            "Area-weighted RMSE (lower is better) and anomaly correlation against the climatology of the day of year "
            "(higher is better), after WeatherBench 2.",
            partial(skill.draw_skill_by_lead_time, scores, source),
        )


def _curve_figures(scores: Scores, source: str) -> Iterator[NamedFigure]:
    if panels := zonal_panels(scores):
        yield NamedFigure(
            "spectra",
            "Which scales survive",
            "Power by zonal wavenumber between 30 and 60 degrees north and south, mean over all cases; of an ensemble "
            f"that of its members. Later lead times are darker. {power_in_words(list(panels.values()))}",
            partial(draw_zonal_spectra, panels, source),
        )
    if scores.has(RANKS):
        yield NamedFigure(
            "rank_histogram",
            "Where the truth lies among the members",
            "Share of area in which so many members lie below the truth, over all cases. A calibrated ensemble has the "
            "truth at every rank alike; high ends mean too little spread, a high middle too much.",
            partial(draw_rank_histograms, scores, source),
        )


def _forecast_figures(example: WeatherExample, lead: float | None) -> Iterator[NamedFigure]:
    has_truth = example.truth is not None
    beside = "Forecast, truth and error" if has_truth else "Forecast"
    yield NamedFigure(
        "forecast_globe",
        "One forecast on the globe",
        f"{beside} of one test case; the date is the valid time. Fields are interpolated smoothly between grid points.",
        lambda path: maps.draw_forecast_globes(example, lead, path),
    )
    yield NamedFigure(
        "forecast_maps",
        "One forecast, variable by variable",
        "The same test case in Equal Earth projection, which keeps areas true."
        + (" Both errors of a variable share one color scale; persistence keeps the initial state." * has_truth),
        lambda path: maps.draw_forecast_maps(example, lead, path),
    )
    compared = ComparedTracks.of(example) if len(example.lead_times) >= MIN_FRAMES else None
    if compared is not None and compared.forecast:
        yield NamedFigure(
            "cyclone_tracks",
            "Tracks of cyclones",
            f"Minima of pressure between 20 and 75 degrees of the same test case, followed from one lead time to the "
            f"next; the large mark is where one was seen last. {tracks_in_words(compared)}",
            partial(draw_tracks, example, compared),
        )
    if len(example.lead_times) >= MIN_FRAMES:
        yield NamedFigure(
            "forecast_animation",
            "The forecast in motion",
            f"From the initial state to lead {example.lead_times[-1]:g} h"
            + (", the model left and the truth right." if has_truth else "."),
            lambda path: animation.draw_forecast_animation(example, path),
        )
